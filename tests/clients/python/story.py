"""What the Python client programs share: their arguments, the records they send, and PASS and FAIL lines."""

import subprocess
import sys
import time
import traceback

COUNT = 100
SPLIT = 40
BASE_TIME = int(time.time() * 1000) - 3_600_000


def address():
    return sys.argv[1]


def records():
    """(key, value, timestamp in ms, headers) of every record; one key and one value are null."""
    for i in range(COUNT):
        key = None if i == 3 else b"key-%d" % i
        value = None if i == 5 else b"value-%d " % i + b"x" * i
        yield key, value, BASE_TIME + 1000 * i, [("header", b"h%d" % i)]


EXPECTED = [(offset, *record) for offset, record in enumerate(records())]


def equal(found, wanted):
    if found != wanted:
        raise AssertionError(f"found {str(found)[:400]}, wanted {str(wanted)[:400]}")


def until(condition, seconds=30):
    """Waits until a change that Kafka carries out in the background is seen."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"still not so after {seconds} s")
        time.sleep(0.05)


def is_member():
    """Whether the program is to be a member of a group until it is killed: address, topic and group are its arguments."""
    return len(sys.argv) > 2


class OtherMember:
    """The same program in a process of its own, as a member of a group that dies without a word."""

    def __init__(self, topic, group):
        self.process = subprocess.Popen([sys.executable, sys.argv[0], address(), topic, group])

    def die(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.die()


class Story:
    def __init__(self):
        self.failed = False

    def passed(self, name):
        print("PASS", name, flush=True)

    def fail(self, name):
        self.failed = True
        reason = traceback.format_exc()
        print(reason, file=sys.stderr)
        print("FAIL", name, reason.strip().splitlines()[-1], flush=True)

    def check(self, name, function, *arguments):
        try:
            function(*arguments)
            self.passed(name)
        except Exception:
            self.fail(name)

    async def check_async(self, name, function, *arguments):
        try:
            await function(*arguments)
            self.passed(name)
        except Exception:
            self.fail(name)

    def end(self):
        sys.exit(1 if self.failed else 0)
