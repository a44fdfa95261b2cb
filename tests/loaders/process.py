"""`tukang load` as a process, for tests that kill it: python -m tests.loaders.process URL LOADER follow|once TOPIC."""

import logging
import sys

from loaders.load import load

if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    _, url, name, how, *topics = sys.argv
    sys.exit(load(url, name, topics, follow=how == "follow"))
