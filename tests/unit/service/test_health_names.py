import asyncio

from grpc_health.v1.health_pb2 import HealthCheckResponse

from convvae_service.health import Health

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


def test_names_follow_the_models() -> None:
    """Services are ready when a model is; models that have gone are unknown; liveness stays."""

    async def body() -> None:
        health = Health(["service"], ["a", "b"])
        assert health._server_status == {
            "": NOT_SERVING,
            "service": NOT_SERVING,
            "a": NOT_SERVING,
            "b": NOT_SERVING,
            "liveness": SERVING,
        }
        await health.follow({"b": False, "c": True})
        assert health._server_status == {
            "": SERVING,
            "service": SERVING,
            "b": NOT_SERVING,
            "c": SERVING,
            "liveness": SERVING,
        }
        await health.set_unready()
        assert set(health._server_status.items()) == {
            ("", NOT_SERVING),
            ("service", NOT_SERVING),
            ("b", NOT_SERVING),
            ("c", NOT_SERVING),
            ("liveness", SERVING),
        }

    asyncio.run(body())


def test_a_folder_cannot_pass_for_a_service() -> None:
    """A model called like the service or like liveness, usable or not, changes neither, nor when it goes."""

    async def body() -> None:
        health = Health(["service"], ["liveness", "service", "good"])
        await health.follow({"liveness": False, "service": False, "good": True})
        assert health._server_status == {
            "": SERVING,
            "service": SERVING,
            "good": SERVING,
            "liveness": SERVING,
        }
        await health.follow({"good": False})
        assert health._server_status["service"] == NOT_SERVING
        assert health._server_status["liveness"] == SERVING

    asyncio.run(body())
