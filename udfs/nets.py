"""The four networks and the one file that carries them.

P-, R- and O-Net: Zhang et al., "Joint Face Detection and Alignment using Multitask Cascaded Convolutional
Networks" (2016). The embedding network is FaceNet's idea (Schroff et al., 2015) on the Inception-ResNet of
Szegedy et al. (2016). Layers and weights are facenet-pytorch's.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from udfs.cascade import CascadeNet, arrange
from udfs.fusing import fuse

StateDict = dict[str, Tensor]

MODEL_FILE_FORMAT = "face-reindex/model-file/1"
NET_NAMES = ("pnet", "rnet", "onet", "resnet")
_REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class ModelFileError(ValueError):
    """A model file that can't be used; the text says what is wrong with it and what to do."""


@dataclass(frozen=True)
class ModelMeta:
    """Where the embedding weights come from: ``label`` is for people, ``trained`` is False for random ones.

    ``origin`` and ``licence`` are for people too: the way they came, with digests, and what is known of their licence.
    """

    label: str
    trained: bool
    source: str
    sha256: str
    origin: str = ""
    licence: str = ""


@dataclass(frozen=True)
class ModelFile:
    """A model file in memory: state dicts by network name, and their origin."""

    state_dicts: dict[str, StateDict]
    meta: ModelMeta


@dataclass(frozen=True)
class Nets:
    """Networks ready to run: eval mode, no gradients, channels_last. ``dtype`` is the embedding network's.

    ``one_shape``: show the embedding network passes of one size only, filled up. A GPU chooses its kernels by shape,
    and one shape gives one result for one face; a compiled network is compiled for each.
    ``compiled``: by torch.compile.
    """

    pnet: CascadeNet
    rnet: CascadeNet
    onet: CascadeNet
    resnet: nn.Module
    device: torch.device
    dtype: torch.dtype
    meta: ModelMeta
    one_shape: bool = False
    compiled: bool = False


def save_model_file(path: Path, model: ModelFile) -> None:
    """Write ``model`` to ``path``, readable without unpickling code."""
    save_tensors(path, {"format": MODEL_FILE_FORMAT, "meta": asdict(model.meta), "nets": model.state_dicts})


def save_tensors(path: Path, content: Any) -> None:
    """``torch.save``, to the same bytes whatever the name of ``path``: torch writes a name that it is given inside."""
    with path.open("wb") as out:
        torch.save(content, out)


def read_model_file(path: str | Path) -> ModelFile:
    """Read a file written by `save_model_file`. Raises `ModelFileError`."""
    content = load_tensors(Path(path).read_bytes(), what="the model file")
    if not isinstance(content, dict) or content.get("format") != MODEL_FILE_FORMAT:
        raise ModelFileError(f"not a model file of format {MODEL_FILE_FORMAT}; write one with build_model_file")
    nets, meta = content.get("nets"), content.get("meta")
    kinds = {"label": str, "trained": bool, "source": str, "sha256": str, "origin": str, "licence": str}
    # Files that were written before the last two were noted are as good.
    meta = {"origin": "", "licence": "", **meta} if isinstance(meta, dict) else meta
    if not isinstance(nets, dict) or not all(_plain_tensors(nets.get(name)) for name in NET_NAMES):
        raise ModelFileError(
            f"the model file lacks one of {', '.join(NET_NAMES)}; write it again with build_model_file"
        )
    if not isinstance(meta, dict) or {key: type(value) for key, value in meta.items()} != kinds:
        raise ModelFileError("the model file does not say where its weights are from; write it with build_model_file")
    return ModelFile({name: nets[name] for name in NET_NAMES}, ModelMeta(**meta))


def load_tensors(data: bytes, *, what: str) -> Any:
    """``torch.load`` that never runs code from the file. Raises `ModelFileError`."""
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, runtime and value errors alike
        raise ModelFileError(
            f"{what} can't be loaded as plain tensors ({type(error).__name__}); "
            "export it again as a state_dict with torch.save(model.state_dict(), path)"
        ) from None


def build_nets(model: ModelFile, *, device: str = "cpu", dtype: str = "float32", compiled: bool = False) -> Nets:
    """Put the networks on ``device``. ``dtype`` applies to the embedding network, detection is float32.

    ``compiled``: the embedding network through torch.compile, one program for each shape it is shown.

    Raises `ModelFileError` where a tensor is missing, unknown or of the wrong shape.
    """
    target = torch.device(device)
    embed_dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
    loaded = {name: _load(name, model.state_dicts[name]) for name in NET_NAMES}
    resnet = loaded.pop("resnet")
    _fold_batch_norms(resnet)
    resnet.to(device=target, dtype=embed_dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compiled:
        resnet = torch.compile(resnet, dynamic=False)  # type: ignore[assignment]
    elif target.type == "cpu":
        fuse(resnet, embed_dtype)
    cascade = {name: arrange(name, net, target) for name, net in loaded.items()}
    return Nets(
        **cascade, resnet=resnet, device=target, dtype=embed_dtype, meta=model.meta,
        one_shape=compiled or target.type == "cuda", compiled=compiled,
    )  # fmt: skip


def empty_net(name: str) -> nn.Module:
    """A network without memory behind its tensors: its shapes only (device ``meta``)."""
    from facenet_pytorch.models.inception_resnet_v1 import InceptionResnetV1
    from facenet_pytorch.models.mtcnn import ONet, PNet, RNet

    # On the meta device no random initialisation runs: faster, and the caller's random state is left alone.
    with torch.device("meta"):
        if name == "resnet":
            net: nn.Module = InceptionResnetV1(pretrained=None, classify=False)
        else:
            net = {"pnet": PNet, "rnet": RNet, "onet": ONet}[name](pretrained=False)
    return net.eval()


def check_state_dict(name: str, state: Mapping[str, Any]) -> StateDict:
    """Return ``state`` without the classifier, if it fits network ``name``. Raises `ModelFileError`."""
    expected = {key: tensor.shape for key, tensor in empty_net(name).state_dict().items()}
    if not all(isinstance(key, str) for key in state):
        raise ModelFileError(f"{name}: a tensor has no name")
    found = {key: value for key, value in state.items() if not key.startswith("logits.")}
    # Files saved before PyTorch 0.4.1 lack the batch counters, which have no effect in eval mode.
    for key in expected:
        if key.endswith("num_batches_tracked"):
            found.setdefault(key, torch.zeros((), dtype=torch.int64))
    missing, unknown = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or unknown:
        raise ModelFileError(f"{name}: {len(missing)} tensors missing {missing[:3]}, {len(unknown)} unknown")
    for key, shape in expected.items():
        value = found[key]
        if not isinstance(value, Tensor) or value.shape != shape:
            raise ModelFileError(f"{name}: {key} is not a tensor of shape {tuple(shape)}")
        counter = key.endswith("num_batches_tracked") and value.dtype == torch.int64
        if not _is_dense(value) or not (counter or value.dtype in _REAL):
            raise ModelFileError(f"{name}: {key} is {value.dtype}, {value.layout}; dense real numbers are needed")
        if not bool(torch.isfinite(value).all()):
            raise ModelFileError(f"{name}: {key} holds numbers that are not finite")
    return {key: found[key].detach().contiguous() for key in sorted(expected)}


def mtcnn_state_dicts() -> dict[str, StateDict]:
    """The weights of P-, R- and O-Net that lie in the facenet-pytorch wheel."""
    from importlib.resources import files

    folder = files("facenet_pytorch") / "data"
    names = ("pnet", "rnet", "onet")
    return {n: check_state_dict(n, load_tensors((folder / f"{n}.pt").read_bytes(), what=n)) for n in names}


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hex."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _plain_tensors(state: object) -> bool:
    """Whether these are tensors by name, of which a digest can be taken."""
    return isinstance(state, dict) and all(isinstance(key, str) and _is_dense(value) for key, value in state.items())


def _is_dense(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"


def _load(name: str, state: Mapping[str, Any]) -> nn.Module:
    net = empty_net(name)
    # Cloned: moving the network must not change the state dict that the fingerprint is taken from.
    net.load_state_dict({k: v.clone() for k, v in check_state_dict(name, state).items()}, assign=True)
    return net.requires_grad_(False)


def _fold_batch_norms(net: nn.Module) -> None:
    """Fold each batch norm into the convolution before it: the same function in fewer memory passes."""
    for module in net.modules():
        conv, norm = getattr(module, "conv", None), getattr(module, "bn", None)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(conv, norm)
            module.bn = nn.Identity()
