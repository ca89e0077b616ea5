"""A user's program with KServe's own client, unmodified: each step's findings go to stdout as JSON.

It runs in the environment that `make tools` makes, with nothing of this project: `PYTHON FILE
HOST:PORT NAME`.
"""

import asyncio
import json
import sys
from typing import Any

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest, InferResponse

IMAGES = np.random.default_rng(5).integers(0, 256, (3, 8, 6, 1), np.uint8)
LATENTS = np.ones((2, 4), np.float32)


def request(model: str, name: str, values: Any, datatype: str) -> InferRequest:
    tensor = InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values)
    return InferRequest(model, [tensor], request_id="by kserve")


def described(response: InferResponse) -> dict[str, Any]:
    outputs = {tensor.name: tensor.as_numpy().tolist() for tensor in response.outputs}
    return {"model": response.model_name, "id": response.id, "outputs": outputs}


async def main(target: str, service: str) -> None:
    client = InferenceGRPCClient(target, timeout=20)
    found: dict[str, Any] = {
        "server": [await client.is_server_live(), await client.is_server_ready()],
        "ready": {
            name: await client.is_model_ready(name)
            for name in (service, f"{service}.encoder", f"{service}.decoder", "absent")
        },
        "plain": described(await client.infer(request(service, "image", IMAGES, "UINT8"))),
        "encoder": described(await client.infer(request(f"{service}.encoder", "image", IMAGES, "UINT8"))),
        "decoder": described(await client.infer(request(f"{service}.decoder", "latent", LATENTS, "FP32"))),
    }
    try:
        await client.infer(request("absent", "image", IMAGES, "UINT8"))
        found["absent"] = "answered"
    except grpc.RpcError as error:
        found["absent"] = str(error)
    await client.close()
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
