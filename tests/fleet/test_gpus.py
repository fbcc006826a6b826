from __future__ import annotations

from dataclasses import replace

from tests.fleet.support import make_gpus


def test_gpu_ids_get_the_format_of_nvidia() -> None:
    plain, uuid = "2791c6267cdced2a19679d6341469e5f", "GPU-2791c626-7cdc-ed2a-1967-9d6341469e5f"
    (gpu,) = make_gpus("idle", 1)
    for gpu_id in (plain, plain.upper(), uuid):
        assert replace(gpu, gpu_id=gpu_id).nvidia_uuid == uuid
    for wrong in (plain[:-1], plain[:-1] + "g", plain + "\n", ""):
        assert replace(gpu, gpu_id=wrong).nvidia_uuid is None
