"""A key of a setting that nobody reads is told, with the one that was meant."""

from pathlib import Path

from deploy.keys import misspelt
from deploy.local import Stack
from deploy.part import Ward


def test_a_key_that_nobody_reads_is_told_with_the_nearest_one() -> None:
    told = list(misspelt({"TUKANG_BROKR": "x:1", "TUKANG_BROKER": "x:1", "TUKANG_XYZZY": "1", "OTHER": "1"}))
    assert told == [
        "TUKANG_BROKR is no setting, and is ignored. Did you mean TUKANG_BROKER?",
        "TUKANG_XYZZY is no setting, and is ignored.",
    ]


def test_keys_of_the_file_are_looked_at_too(tmp_path: Path) -> None:
    file = tmp_path / "tukang.toml"
    file.write_text('broker = "x:1"\nlisten = "127.0.0.1:1"\nmemry = "1GiB"\n[orders]\n')
    assert list(misspelt({"TUKANG_CONFIG": str(file)})) == [
        "TUKANG_CONFIG: memry is no setting, and is ignored. Did you mean memory?",
        "TUKANG_CONFIG: orders is no setting, and is ignored.",
    ]


def test_what_the_embedded_stack_and_kubernetes_set_is_no_slip(tmp_path: Path) -> None:
    environment = Stack(tmp_path, topics="orders").environment | Ward().environment
    assert not list(misspelt(environment))
    kubernetes = (
        "SERVICE_HOST",
        "SERVICE_PORT",
        "SERVICE_PORT_HTTP",
        "PORT",
        "PORT_8470_TCP",
        "PORT_8470_TCP_ADDR",
    )
    assert not list(misspelt({f"TUKANG_API_{name}": "x" for name in kubernetes}))
