"""Bundles for tests, made in milliseconds and without torch: one linear layer each way."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from convvae_service.bundle import (
    CAPABILITIES,
    TRAINED_ON_FILE,
    Accuracy,
    Graph,
    ImageShape,
    LikelihoodSpec,
    Manifest,
    Parity,
    Precision,
    Resize,
    Role,
    Training,
    describe_graph,
    encode_trained_on,
    publish,
)
from convvae_service.images import ModelInput

OPSET = 20
BERNOULLI = LikelihoodSpec(name="bernoulli", probability_clamp=1e-6)
GAUSSIAN = LikelihoodSpec(name="gaussian", sigma=0.1)
SHAPE = ImageShape(height=8, width=6, channels=1)
LATENT_DIM = 4
# How the model `tiny` takes its images.
TINY_INPUT = ModelInput("tiny", SHAPE, Resize(decode="scaled"))
# Added to a model's seed, so that the answers tell which graphs ran.
PRECISION_SEEDS: dict[Precision, int] = {"fp32": 0, "fp16": 1000, "int8": 2000}


def weights(shape: ImageShape, latent_dim: int, seed: int) -> dict[str, NDArray[np.float32]]:
    """Return the weights of a tiny model: encoder (values, 2 x latent), decoder (latent, values)."""
    rng = np.random.default_rng(seed)
    scale = shape.num_values**-0.5
    return {
        "encode": rng.normal(0, scale, (shape.num_values, 2 * latent_dim)).astype(np.float32),
        "decode": rng.normal(0, 1, (latent_dim, shape.num_values)).astype(np.float32),
    }


def encoder(shape: ImageShape, latent_dim: int, *, seed: int = 0, log_variance: bool = True) -> bytes:
    """Return an encoder: image / 255, flattened, times a matrix."""
    values = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "scale"], ["unit"]),
        helper.make_node("Reshape", ["unit", "flat_shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["both"]),
        helper.make_node("Split", ["both"], ["mean", "log_variance"], axis=1, num_outputs=2),
    ]
    outputs = ["mean", "log_variance"] if log_variance else ["mean"]
    constants = {
        "scale": np.float32(255),
        "flat_shape": np.array([-1, shape.num_values], np.int64),
        "matrix": weights(shape, latent_dim, seed)["encode"],
    }
    return _model(
        values,
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", *shape.as_tuple])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", latent_dim]) for name in outputs],
        constants,
    )


def decoder(shape: ImageShape, latent_dim: int, *, seed: int = 0) -> bytes:
    """Return a decoder: latent times a matrix, through a sigmoid."""
    nodes = [
        helper.make_node("MatMul", ["latent", "matrix"], ["flat"]),
        helper.make_node("Sigmoid", ["flat"], ["probability"]),
        helper.make_node("Reshape", ["probability", "image_shape"], ["pixel_mean"]),
        helper.make_node("Mul", ["pixel_mean", "scale"], ["scaled"]),
        helper.make_node("Round", ["scaled"], ["rounded"]),
        helper.make_node("Cast", ["rounded"], ["image"], to=TensorProto.UINT8),
    ]
    constants = {
        "scale": np.float32(255),
        "image_shape": np.array([-1, *shape.as_tuple], np.int64),
        "matrix": weights(shape, latent_dim, seed)["decode"],
    }
    sizes: list[str | int | None] = ["batch", *shape.as_tuple]
    return _model(
        nodes,
        [helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["batch", latent_dim])],
        [
            helper.make_tensor_value_info("image", TensorProto.UINT8, sizes),
            helper.make_tensor_value_info("pixel_mean", TensorProto.FLOAT, sizes),
        ],
        constants,
    )


def publish_tiny(
    root: Path,
    name: str = "tiny",
    *,
    shape: ImageShape = SHAPE,
    latent_dim: int = LATENT_DIM,
    likelihood: LikelihoodSpec = BERNOULLI,
    objective: str = "vae",
    seed: int = 0,
    precisions: Sequence[Precision] = ("fp32",),
    trained_on: NDArray[np.uint64] | None = None,
) -> Path:
    """Publish the next version of a tiny model, and return its folder.

    The graphs of each precision have weights of their own, in float32. `trained_on` are fingerprints.
    """
    graphs: dict[str, bytes] = {}
    described: list[Graph] = []
    for precision in precisions:
        own = seed + PRECISION_SEEDS[precision]
        made: dict[Role, bytes] = {
            "encoder": encoder(shape, latent_dim, seed=own, log_variance=objective != "ae"),
            "decoder": decoder(shape, latent_dim, seed=own),
        }
        for role, data in made.items():
            graph = describe_graph(
                data,
                role=role,
                precision=precision,
                opset=OPSET,
                image=shape,
                latent_dim=latent_dim,
                has_log_variance=objective != "ae",
            )
            described.append(graph)
            graphs[graph.file] = data
    entry = None
    if trained_on is not None:
        entry, graphs[TRAINED_ON_FILE] = encode_trained_on(trained_on)
    manifest = Manifest(
        model=name,
        objective=objective,
        likelihood=likelihood,
        image=shape,
        latent_dim=latent_dim,
        capabilities=("encode", "decode", "reconstruct") if objective == "ae" else CAPABILITIES,
        graphs=tuple(described),
        parity={
            precision: Parity(batches=(1, 2), mean=0.0, log_variance=0.0, image_steps=0, pixel_mean=0.0)
            for precision in precisions
        },
        accuracy={precision: Accuracy.exact(has_elbo=objective != "ae") for precision in precisions},
        training=Training(dataset="random weights", images=0, epochs=0, seed=seed, commit=""),
        resize=Resize(decode="scaled", library="Pillow"),
        trained_on=entry,
    )
    return publish(root, manifest, graphs)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: Mapping[str, Any],
) -> bytes:
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()
