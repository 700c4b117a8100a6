"""JPEGs of which a part is missing, damaged or left over: libjpeg decodes them, with a warning that nobody reads."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from tests.golden.support import encoded, noise, small_astronaut
from tests.unit.udfs.decoding import PARAMS, failure
from udfs.decode import decode
from udfs.jpegs import is_sound, with_noise_behind
from udfs.limits import Scans, jpeg_scans

pytestmark = pytest.mark.unit

END = b"\xff\xd9"
# 48 x 48 pixels, written by libjpeg-turbo's cjpeg: Pillow writes neither arithmetic codes nor odd subsampling.
_BY_CJPEG = {
    "arithmetic": (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV02>k%7Zed27Zw*D92+1gLMtdGB`8rkJupIGRb^yfRb5+Zc$tA}agcLcU4^xVke;Kft*d8%yve$z$C;?Br2"
        "pFhLjfEf9w;LyPAe-;q;6eqq@<*zq@<*zq@<*zq@<*zq@<*zq@<*zq@<*zq@<*zq@<*zq@<*zq@<*zq@<*zq@@4J01*fPFaR(E0U`hb5di}c0sqV"
        "Z3IGrg1pyEd1^?Or3<CiG0ucid06zfzX7&^-&)fxxP?e~uOtT7iW}qs*9FpHXy_S41MzPw<^~0k4A_sRO&`i_Oq*QLv#??h=Z>k6dO|3(O5W<NFO"
        "UrH=KVU#|P*P(EaM;%B29VNxr`6jV$*Z@D4I~GodMF9)JdXh6nmnQMajiR3@Nm@n#W$@i;Us?su{re=XQun6$PQpMJFf&GU=$804FXFz%GMh`nZf"
        "ZWXUXe)sQ0{Ob5LodyKKrEgIR2$Xh~UXk1q!Wb=QH8uM5Jz^Ut&C&M)#ovdC=O7maCncYMUIvZEIQv#L18Ft)DkgsdDlmUdQ1T3%F`FE-9je|j(G"
        ")v~s|pVtua(3xpAHxx7KcF(YUd^N6W2V3aBMu7w2OkJvWRn3jK`;iU7!|C%6^2I2UGdi_Nzsr(AMK|XsVi7cTYE#b2Q$uV4_F94%l(38`qSt_s;-"
        "l}@XnzYNC6FgKxv?}h*L_ye3?kG)-|ftZd&Uf^G`HqEm*c75u4eCghWlL(QQ=Oy%_}1gV~$q1k=$V#?pQNRmWrt`rZsb^^BoC{#!{tX$)OpPuLls"
        "G$!VjA;)0uCopkuh;b@tsg)+6-w_gu@_Oqx~Va@7gQLQ(C|Je"
    ),
    "arithmetic, progressive": (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV02>k%7Zed27Zw*D92+1gLMtdGB`8rkJupIGRb^yfRb5+Zc$tA}agcLcU4^xVke;Kft*d8%yve$z$C;?Br2"
        "pFhLjfEf9w;LyPAe-;q;6eqq@<*zq@<*zq@<*zq@<*zq@<*zq@<*zq@<*zq@<*zq@<*zq@<*zq@<*zq@<*zq@@4K01*fPFaR(E0U`hb5di}c0sqV"
        "Z1^^HN5dYc$3<CiG0uTcb0005{kRpSy4H}#P>dFA*^*-ny4iV0Omo!eg{CjqKW-(zIJ+K)6%m4%s1^?Or2mt{A0R;jS8ic!GOOzOL1KwvoLzN9=G"
        "IL=q12xFSpa~>*zw1b-C?k=&smRJLrf&(4^+i1?j@2#y0Dw+6gt5M4kMQ)15yQa$%m4%t1^?Or2mu2D0Y3rSaV~N`4gbsl1Q7-Q+5iXv0s#R(0W;"
        "NAnqdFT00a;P|Jncu0RaF8KLQ@o`~)ZZ<pSFsj|2Okg&M3ejA2#s8C|m?`+#aQ-po&W>I(nN00a;P|Jncu0RaF3KOw+|!f4V=@(w=7yE3DdOBmR@"
        "3Tc$>xtyu4e2qG>B(B^fF$BdUp~ujWyF6UV<&Y1IkT6J3cm>yJOaKm~GL~WxVRaM6JI%lotn9*qBBsA=e1jYfw6^r7Z&Bu6GL1M9XKMv7s)GW>et"
        "`el01N{G00IC50000Gr(nAgufm}J%m4%t1^?Or2mu2D0Y4Cvq;h4DY9X<wL8@$c!2iqu1Q7-Q+5iXv0s#R(5K+6LD<#z=QdEYDPhkJd00a;P|Jnc"
        "u0RaF3KM+GWqL0znnXSw9*QQVvCmPZ}1cBq31k@f4TSc-kt&;&MwJqv+bb#^h7Ic}<!r1Qcb6swrl}Tg<*uxny-zVQri`^*czxL?Dy!WKol*8I&!"
        "J$!CywcVt20$BT`*p1n+})h;A5O7tTCo&(hHvb^b!Xc76s+zx^U0Qb7%eZ-gZ&TQZ8g_P{m+i6qD;QWp!Pns`Z!op@Fja3P^yHSj;VV@nMJ3}rV%"
        "I`X$b$>"
    ),
    "subsampling without a name": (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV02>k%7Zed27Zw*D92+1gLMtdGB`8rkJupIGRb^yfRb5+Zc$tA}agcLcU4^xVke;Kft*d8%yve$z$C;?Br2"
        "pFhLjfEf9w;LyPAe-;q;6eqq@<*zq@<*zq@<*zq@<*zq@<*zq@<*zq@<*zq@<*zq@<*zq@<*zq@<*zq@<*zq@@4A01*fPFaR(E0Wkmq5di}c0sq7"
        "R8UO$S0|5a500000000000009700IRD0sq7RED!(!0RsXB1OfpC00000000330{{dO5+MZ>A~8`EL1A%1u`*(z!O`&l!~hrp00RL500000000000"
        "000000IL90sq7R8xa5l0RaI40RR9100000000015dtAG5(EF*01N{G00I#M5dc2`TZGEO>O^-&5*8qi<oC^Mmsrrd1F-g`mg+{-<mp^=_!PTvWP<"
        "SfzgDlG<cGhJUU61mM~2%c9sBK75tD5mt=mA!`NbZ<GdOy!w-9BXJucfWe;U}iFr*FYTqJF=IsH_Nm+271OGH2!$r&Hwjd!C+;Vf)Luy)T>hdA&&"
        "RXEB4!sTPWk}CGyc9EayAE81Oh+f9G$g{z_XK(dV{PT1z#sJZzF#KEG)<aEu3_?9p2*yI~wmv9MxIWWKGoawNQpo^{<mJHWW88{j{^l5ADK0yP!Q"
        "VU3)zM=s9zuh#@$p?IA!`hl?<{ZZ*aObp=<XIwslx&@y(Q^d7Cfn)6#hNx7HHe7tz;#<CKBw<S+U-h;`h=S%xXrGfS<flXNX+;NLME(9`#H*XZ=)"
        "a9Shtf-Dq|@{L;$dr68R>vQ1t&0l7j35qIC}l}GhUw9-ghj9r*!nPb2%+3o)Td8DA?*H-az&?ZUAW?Yl;^+dY#_tuSb6iWrfSmwr~3c&5C3aT<|*"
        "fDDF42CD^3!MGYrjiKRbvXsd1g_?<Acop-NaiT>-28ufkI!2+Jx&=sV^F?u-S9tDDeoHM;wfZR9JN#mqihPfm`!->oha&5?N>2BPyg8"
    ),
}


def kinds() -> dict[str, bytes]:
    picture, cmyk = Image.fromarray(small_astronaut(160)), Image.fromarray(small_astronaut(160)).convert("CMYK")
    made = {
        "baseline": encoded(picture, "JPEG"),
        "4:4:4": encoded(picture, "JPEG", subsampling=0, optimize=True),
        "grey": encoded(picture.convert("L"), "JPEG"),
        "restart markers": encoded(picture, "JPEG", restart_marker_rows=1),
        "progressive": encoded(picture, "JPEG", progressive=True),
        "grey, progressive": encoded(picture.convert("L"), "JPEG", progressive=True),
        "RGB": encoded(picture, "JPEG", keep_rgb=True),
        "CMYK": encoded(cmyk, "JPEG"),
        "CMYK, progressive": encoded(cmyk, "JPEG", progressive=True),
    }
    return made | {name: base64.b85decode(text) for name, text in _BY_CJPEG.items()}


KINDS = kinds()
every_kind = pytest.mark.parametrize("data", KINDS.values(), ids=list(KINDS))


def coded_part(data: bytes) -> int:
    """Where the pixels of the first scan begin."""
    start = data.index(b"\xff\xda")
    return start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")


@every_kind
def test_a_sound_jpeg_is_decoded_whatever_stands_behind_its_end(data: bytes) -> None:
    pixels = decode(data, PARAMS).pixels
    film = b"\0\0\0\x18ftypmp42" + noise(20, 20).tobytes()  # a motion photo's
    for behind in (b"\0" * 5_000, film, b"MPF" + data, b"\xff\xd8\xff", b"\xff" * 9, b"\xff\xda\0\x0c\x03", b"\n"):
        assert np.array_equal(decode(data + behind, PARAMS).pixels, pixels)


@every_kind
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_guarantee_16_a_cut_jpeg_with_an_end_behind_it_is_broken(data: bytes, part: float) -> None:
    start = coded_part(data)
    half, missing = data[: start + int(part * (len(data) - start))], int((1 - part) * (len(data) - start))
    assert failure(half) == ("broken", "TRUNCATED")
    # As tools mend it, and as a copy ends for which there was no room: few zeros, as many as are missing, more.
    for behind in (
        END,
        b"\0" * 10 + END,
        b"\0" * missing,
        b"\0" * missing + END,
        b"\0" * 100_000 + END,
        b"\0" * 100_000,
    ):
        assert failure(half + behind)[0] == "broken"


@every_kind
def test_guarantee_16_a_jpeg_that_lacks_a_block_in_its_middle_is_broken(data: bytes) -> None:
    start = coded_part(data)
    middle, length = start + (len(data) - start) // 3, (len(data) - start) // 4
    assert failure(data[:middle] + data[middle + length :])[0] == "broken"
    assert failure(data[:middle] + b"\0" * length + data[middle + length :])[0] == "broken"


@pytest.mark.parametrize("name", ["progressive", "grey, progressive", "CMYK, progressive", "arithmetic, progressive"])
def test_guarantee_16_a_progressive_jpeg_without_its_last_scans_is_broken(name: str) -> None:
    """The whole picture is there, but blurred: who stands behind is not found."""
    data = KINDS[name]
    starts = [at for at in range(len(data)) if data.startswith(b"\xff\xda", at)]
    assert jpeg_scans(data, 32).complete
    for start in starts[1:]:
        assert not jpeg_scans(data[:start] + END, 32).complete
        assert failure(data[:start] + END) == ("broken", "CORRUPT")


def test_a_scan_each_for_the_components_of_a_sequential_jpeg() -> None:
    frame = b"\xff\xc0\0\x11\x08\0\x10\0\x10\x03\x01\x11\0\x02\x11\0\x03\x11\0"
    scans = [b"\xff\xda\0\x08\x01" + bytes([component]) + b"\0\0\x3f\0\x55" for component in (1, 2, 3)]
    whole = b"\xff\xd8" + frame + b"".join(scans) + END
    assert jpeg_scans(whole, 32) == Scans(3, several=True)
    assert jpeg_scans(whole.replace(scans[1], b""), 32) == Scans(2, several=True, complete=False)


def test_bytes_that_are_left_over_in_a_scan_are_damage_and_in_a_header_are_none() -> None:
    data = KINDS["baseline"]
    assert failure(data[:-2] + b"\0" * 8 + END) == ("broken", "CORRUPT")
    for at in (data.index(b"\xff\xdb"), data.index(b"\xff\xc4"), data.index(b"\xff\xda")):
        odd = data[:at] + b"\0\1" + data[at:]
        assert np.array_equal(decode(odd, PARAMS).pixels, decode(data, PARAMS).pixels)
        # What matters to nobody hides nothing that matters.
        assert failure(odd[: len(odd) // 2] + END)[0] == "broken"
        assert failure(odd[:-20] + END) == ("broken", "CORRUPT")


def test_an_unknown_revision_of_jfif_is_no_damage() -> None:
    data = bytearray(KINDS["baseline"])
    data[data.index(b"JFIF\0") + 5] = 9
    assert is_sound(bytes(data), cmyk=False)
    assert decode(bytes(data), PARAMS).pixels.shape == (160, 160, 3)
    assert failure(bytes(data[:-20]) + END) == ("broken", "CORRUPT")


@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
def test_pictures_behind_the_first_are_not_looked_at(kind: str) -> None:
    """A stereo pair; a gain map behind its picture (UltraHDR)."""
    first, second = Image.fromarray(small_astronaut(96)), Image.fromarray(noise(96, 96))
    if kind == "MPO":
        data = encoded(first, "MPO", save_all=True, append_images=[second])
        assert Image.open(BytesIO(data)).format == "MPO"
    else:
        data = encoded(first, "JPEG", xmp=b'<rdf:Description hdrgm:Version="1.0"/>') + encoded(
            second.convert("L"), "JPEG"
        )
    assert np.array_equal(decode(data, PARAMS).pixels, decode(encoded(first, "JPEG"), PARAMS).pixels)
    # Half of the second is nobody's loss, half of the first is.
    assert decode(data[:-1_000], PARAMS).width == 96
    at = coded_part(data)
    assert failure(data[: at + 500] + data[at + 900 :])[0] == "broken"


def test_a_large_jpeg_is_held_to_the_same_when_it_is_decoded_smaller() -> None:
    big = encoded(Image.fromarray(small_astronaut(256)).resize((2560, 2560)), "JPEG")
    assert decode(big, PARAMS).scale == 0.5
    assert failure(big[: len(big) // 2] + END) == ("broken", "CORRUPT")


def test_guarantee_16_whatever_is_cut_out_or_overwritten_is_seen() -> None:
    data, rng = KINDS["restart markers"], np.random.default_rng(3)
    start = coded_part(data)
    for _ in range(50):
        first, last = sorted(rng.integers(start, len(data) - 2, 2))
        if last - first > 200:
            assert failure(data[:first] + data[last:])[0] == "broken"
            assert failure(data[:first] + bytes(last - first) + data[last:])[0] == "broken"


def test_noise_behind_the_coded_data_changes_nothing_in_a_sound_picture() -> None:
    for name in ("arithmetic", "arithmetic, progressive"):
        data = KINDS[name]
        assert jpeg_scans(data, 32).arithmetic
        noisy = with_noise_behind(data)
        assert len(noisy) > len(data)
        with Image.open(BytesIO(data)) as one, Image.open(BytesIO(noisy)) as other:
            assert np.array_equal(np.asarray(one), np.asarray(other))
