#!/usr/bin/env bash
# Says which GPUs this worker or container may use, as the JSON that Spark expects of a resource discovery script:
#   {"name": "gpu", "addresses": ["0", "1"]}
#
# An address is the number that CUDA gives the device in this environment, so a task uses it as it is: "cuda:<address>".
#   CUDA_VISIBLE_DEVICES=2,3        CUDA numbers what is listed from 0, up to the first entry that does not exist: 0, 1
#   NVIDIA_VISIBLE_DEVICES=none     no GPU (void: the same). Any other value was already applied by the container's
#                                   runtime: nvidia-smi sees only those devices and numbers them from 0.
# Without a driver or a device the list is empty, and the exit code is 0: Spark then says what is missing, by name.
set -euo pipefail

print_addresses() { # count
  local list="" i
  for ((i = 0; i < $1; i++)); do list+="${list:+, }\"$i\""; done
  printf '{"name": "gpu", "addresses": [%s]}\n' "$list"
}

case "${NVIDIA_VISIBLE_DEVICES:-all}" in
  none | void) print_addresses 0; exit 0 ;;
esac

# A missing nvidia-smi fails like one that finds no driver.
if ! found="$(nvidia-smi --query-gpu=uuid --format=csv,noheader 2>/dev/null)"; then
  print_addresses 0
  exit 0
fi
present="$(printf '%s\n' "$found" | grep -c '^GPU-' || true)"

if [[ -z "${CUDA_VISIBLE_DEVICES+set}" ]]; then
  print_addresses "$present"
  exit 0
fi

visible=0
IFS=',' read -r -a wanted <<<"$CUDA_VISIBLE_DEVICES"
for entry in "${wanted[@]+"${wanted[@]}"}"; do
  entry="${entry//[[:space:]]/}"
  if [[ "$entry" =~ ^[0-9]+$ ]]; then
    ((10#$entry < present)) || break
  elif [[ "$entry" == GPU-?* ]]; then
    printf '%s\n' "$found" | grep -q "^$entry" || break
  elif [[ "$entry" != MIG-?* ]]; then
    break
  fi
  visible=$((visible + 1))
done
print_addresses "$visible"
