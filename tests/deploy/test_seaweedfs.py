"""The embedded store does what the worker relies on."""

import subprocess
import sys
import time
from pathlib import Path

import botocore.exceptions
import httpx
import pytest

from deploy.part import Ward
from deploy.seaweedfs import SeaweedFS
from tests.stack.store import Bucket

pytestmark = pytest.mark.slow

OWNER = """
import sys, time
from pathlib import Path
from deploy.part import Ward
from deploy.seaweedfs import SeaweedFS
folder = Path(sys.argv[1])
with Ward(remove=folder) as ward:
    store = SeaweedFS(folder, bucket="one", environment=ward.environment)
    store.start()
    print(*store.ports.values(), flush=True)
    time.sleep(600)
"""


def sockets(ports: list[str]) -> list[Path]:
    """What stands in the folder of all for stores with these ports, under whatever name."""
    return [path for port in ports for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")]


def test_an_object_comes_back_as_it_was_put(bucket: Bucket) -> None:
    bucket.client().put_object(Bucket=bucket.name, Key="fresh/a", Body=b"rows", ChecksumAlgorithm="SHA256")
    assert bucket.keys("fresh/") == ["fresh/a"]
    assert bucket.read("fresh/a") == b"rows"


def test_a_name_is_given_only_once(bucket: Bucket) -> None:
    bucket.client().put_object(Bucket=bucket.name, Key="a", Body=b"first", IfNoneMatch="*")
    with pytest.raises(botocore.exceptions.ClientError, match="PreconditionFailed"):
        bucket.client().put_object(Bucket=bucket.name, Key="a", Body=b"second", IfNoneMatch="*")
    assert bucket.read("a") == b"first"


def test_a_stranger_gets_nothing(bucket: Bucket) -> None:
    bucket.client().put_object(Bucket=bucket.name, Key="a", Body=b"rows")
    assert httpx.get(f"{bucket.endpoint}/{bucket.name}/a").status_code == 403


def test_the_bucket_asked_for_is_there_once_the_store_is_ready(store: SeaweedFS, bucket: Bucket) -> None:
    bucket.client().head_bucket(Bucket=store.bucket)


def test_a_store_that_is_killed_leaves_nothing_once_it_is_ended(tmp_path: Path) -> None:
    with Ward(remove=tmp_path / "store") as ward:
        store = SeaweedFS(tmp_path, bucket="one", environment=ward.environment)
        store.start()
        ports = [str(port) for port in store.ports.values()]
        assert sockets(ports), "else there is nothing to show"
        assert store.process is not None
        store.process.kill()
        store.process.wait()
        store.end()
    assert sockets(ports) == []


def test_a_store_whose_owner_is_killed_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert owner.stdout is not None
    ports = owner.stdout.readline().split()
    assert sockets(ports), "else there is nothing to show"
    owner.kill()
    owner.communicate()
    while folder.exists() or sockets(ports):  # the test's own timeout ends this
        time.sleep(0.05)
