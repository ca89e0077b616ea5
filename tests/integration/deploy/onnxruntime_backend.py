"""A backend of Triton, in Python: it runs `model.onnx` by ONNX Runtime. Triton's Python backend starts it.

Triton's program has the search path of the system's Python. The folder of the packages comes from the
environment.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, os.environ["PACKAGES"])

import onnxruntime
import triton_python_backend_utils as triton  # type: ignore[import-not-found]


class TritonPythonModel:
    """One instance of a model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph of the version, with the threads that the config states."""
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        parameters = json.loads(args["model_config"])["parameters"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(parameters["intra_op_thread_count"]["string_value"])
        self._session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of a batch."""
        replies = []
        for request in requests:
            names = request.requested_output_names()
            values = self._session.run(names, {each.name(): each.as_numpy() for each in request.inputs()})
            outputs = [triton.Tensor(name, value) for name, value in zip(names, values, strict=True)]
            replies.append(triton.InferenceResponse(outputs))
        return replies
