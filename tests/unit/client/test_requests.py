"""The clients' requests: calls cut into them, one version for all, and the limits that they learn."""

from typing import Any

import grpc
import numpy as np
import pytest

import convvae
from convvae import Client, InvalidInput
from support.spoilt_servicer import LATENT_DIM, Invoke, Refusal, Servicer, fail_first, images


def test_chunks_come_back_in_order(invoke: Invoke, servicer: Servicer) -> None:
    """A long call is split, `max_in_flight` chunks are in flight, and rows keep their order."""
    servicer.delay_s = 0.02
    result = invoke("encode", images(33), include_log_variance=True, settings={"max_in_flight": 3})
    assert result.mean[:, 0].tolist() == list(range(33))
    assert result.log_variance.shape == (33, LATENT_DIM)
    assert (result.model, result.version, result.precision) == ("tiny", 1, "fp32")
    assert servicer.count("Encode") == 7
    assert 2 <= servicer.most_in_flight <= 3
    result.mean[0] = 5  # The caller owns the arrays.


def test_message_bytes_cut_a_call(invoke: Invoke, servicer: Servicer) -> None:
    """A call is split by bytes if they reach their limit before the rows."""
    servicer.max_rows, servicer.max_message_bytes = 1000, 1024 + 12 * 4
    result = invoke("reconstruct", images(9))
    assert result.images[:, 0, 0, 0].tolist() == list(range(9))
    counts = [request.pixels.count for method, request in servicer.seen if method == "Reconstruct"]
    assert sorted(counts) == [1, 4, 4]


def test_sample_is_cut_with_one_seed_and_first_row(invoke: Invoke, servicer: Servicer) -> None:
    """The chunks of a sample share one seed, drawn if none was given, and continue each other's rows."""
    result = invoke("sample", 12, first_row=3, temperature=2.0)
    requests = [request for method, request in servicer.seen if method == "Sample"]
    assert sorted((r.first_row, r.count) for r in requests) == [(3, 5), (8, 5), (13, 2)]
    assert {r.seed for r in requests} == {result.seed}
    assert 0 <= result.seed < 2**53
    assert result.latents[:, 0].tolist() == [2.0 * row for row in range(3, 15)]


def test_seed_of_a_small_sample_is_the_servers(invoke: Invoke, servicer: Servicer) -> None:
    """One request without a seed leaves the seed to the server; temperature 0 is sent as such."""
    assert invoke("sample", 2).seed == 12345
    assert invoke("sample", 2, seed=2**64 - 1).seed == 2**64 - 1
    assert not invoke("sample", 2, temperature=0).latents.any()


def test_draws_count_as_rows(invoke: Invoke, servicer: Servicer) -> None:
    """`score` with draws is split so that rows times draws stay under the limit, with one seed."""
    result = invoke("score", images(5), num_samples=2)
    requests = [request for method, request in servicer.seen if method == "Score"]
    assert sorted((r.first_row, r.pixels.count) for r in requests) == [(0, 2), (2, 2), (4, 1)]
    assert {r.seed for r in requests} == {result.seed}
    assert result.distortion.tolist() == [0, 1, 2, 3, 4]
    assert result.elbo.dtype == np.float32
    assert invoke("score", images(2)).seed is None


def test_all_chunks_are_of_one_version(invoke: Invoke, servicer: Servicer) -> None:
    """If the server changes its default version, a split call keeps the version of its first chunk."""
    servicer.versions = (1, 2)

    def before(method: str, _request: Any) -> None:
        if method == "Encode":
            servicer.versions = (1, 2, 3)

    servicer.before = before
    assert invoke("encode", images(20)).version == 2
    assert {request.model.version for method, request in servicer.seen if method == "Encode"} == {2}


def test_version_that_leaves_during_a_call_is_named(invoke: Invoke, servicer: Servicer) -> None:
    """If the version is unloaded before the last chunk, the error says so."""

    def before(method: str, _request: Any) -> None:
        if method == "Encode" and servicer.count("Encode") >= 6:
            servicer.versions = (2,)

    servicer.before = before
    with pytest.raises(convvae.VersionGone, match="version 1 of model 'tiny' was replaced by 2"):
        invoke("encode", images(40))


def test_version_of_the_caller_is_sent(invoke: Invoke, servicer: Servicer) -> None:
    """`model=` with a version gets that version or fails as the server says."""
    servicer.versions = (1, 2)
    assert invoke("encode", images(7), model="tiny@1").version == 1
    with pytest.raises(convvae.NotPossible, match="not loaded"):
        invoke("encode", images(7), model="tiny@9")


def test_limits_are_asked_once(target: str, servicer: Servicer) -> None:
    """The description of a model is fetched once, and again when a call is split."""
    with Client(target) as client:
        for _ in range(3):
            client.encode(images(2))
        assert servicer.count("GetModel") == 1
        client.encode(images(9))
        assert servicer.count("GetModel") == 2
        client.encode(images(9), model="tiny@1")
        client.encode(images(9), model="tiny@1")
        assert servicer.count("GetModel") == 3


def test_limits_that_shrank_are_asked_again(target: str, servicer: Servicer) -> None:
    """After a refusal the client splits again if the limits have changed; otherwise it is final."""
    with Client(target) as client:
        client.encode(images(5))
        servicer.max_rows = 2

        def before(method: str, request: Any) -> None:
            if method == "Encode" and request.pixels.count > servicer.max_rows:
                raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "too many rows")

        servicer.before = before
        assert client.encode(images(5)).mean[:, 0].tolist() == [0, 1, 2, 3, 4]
        servicer.before = fail_first(10, "Encode", grpc.StatusCode.INVALID_ARGUMENT)
        called = servicer.count("Encode")
        with pytest.raises(InvalidInput, match="on purpose"):
            client.encode(images(1))
        assert servicer.count("Encode") == called + 1


def test_model_that_changed_is_asked_again(target: str, servicer: Servicer) -> None:
    """If a new version has another latent dimension, a client that knows the old one still works."""
    with Client(target) as client:
        z = client.encode(images(3)).mean
        servicer.versions, servicer.latent_dim = (1, 2), 6
        assert client.encode(images(3)).mean.shape == (3, 6)
        with pytest.raises(InvalidInput, match=r"shape is \(3, 2\); model 'tiny' takes \(N, 6\)"):
            client.decode(z)
        servicer.latent_dim = 7
        assert client.decode(np.zeros((2, 7), np.float32)).images.shape == (2, 4, 3, 1)


def test_arguments_that_do_not_fit_are_not_sent(invoke: Invoke, servicer: Servicer) -> None:
    """Images and vectors of another size than the model's are refused by the client."""
    with pytest.raises(InvalidInput, match=r"takes \(N, 4, 3, 1\)"):
        invoke("encode", np.zeros((2, 5, 3, 1), np.uint8))
    with pytest.raises(InvalidInput, match=r"one image; a batch of one is images\[np.newaxis\]"):
        invoke("encode", np.zeros((4, 3, 1), np.uint8))
    with pytest.raises(InvalidInput, match=r"takes \(N, 2\)"):
        invoke("decode", np.zeros((2, 3), np.float32))
    assert {method for method, _ in servicer.seen} == {"GetModel"}


def test_token_and_compression_travel(invoke: Invoke, servicer: Servicer) -> None:
    """The token is in every request's metadata; compressed requests arrive."""
    invoke("encode", images(2), settings={"token": "s3cret", "compression": "gzip"})
    assert [metadata.get("authorization") for metadata in servicer.metadata] == ["Bearer s3cret"] * 2
