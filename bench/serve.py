"""What HTTP costs: `cardinal serve` beside `cardinal bench` at the same batch, both decoding the same picture.

    python3 bench/serve.py --binary target/release/cardinal --model resnet50

Three measurements with one picture:
1. throughput at saturation: as many connections as two batches, each asking again as soon as it is answered, beside
   `cardinal bench --picture`, in alternation;
2. latency of one request at a time;
3. latency at half of 1.'s throughput: requests leave at fixed times, whatever has been answered, on as many connections
   as are needed; evenly spaced, and at random (Poisson).

Only the standard library; the client is a few system calls per request, for it shares the cores with the server.
"""

import argparse
import json
import os
import queue
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path


class Connection:
    """A kept connection that sends one request again and again."""

    def __init__(self, port, request):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request = request

    def ask(self):
        """Seconds until the whole answer is there."""
        start = time.perf_counter()
        self.socket.sendall(self.request)
        answer = self.socket.recv(65536)
        while (end := answer.find(b"\r\n\r\n")) < 0:
            answer += self.socket.recv(65536)
        length = int(re.search(rb"content-length: (\d+)", answer[:end]).group(1))
        while len(answer) < end + 4 + length:
            answer += self.socket.recv(65536)
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(answer[:300].decode(errors="replace"))
        return time.perf_counter() - start


class Server:
    def __init__(self, arguments, file):
        command = [arguments.binary, "serve", "-m", f"model={file}", "--port", "0", "-b", str(arguments.batch),
                   "--batch-delay-ms", str(arguments.delay_ms), *arguments.serve]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if " at http://" in line:
                self.port = int(line.rsplit(":", 1)[1])
                break
        else:
            sys.exit("the server did not start")
        picture = Path(arguments.picture).read_bytes()
        self.request = (f"POST /predictions/model HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/jpeg\r\n"
                        f"content-length: {len(picture)}\r\n\r\n").encode() + picture

    def connect(self):
        return Connection(self.port, self.request)

    def saturate(self, connections, seconds):
        """Requests answered in a second, after a quarter of the time for warming up."""
        begin = time.perf_counter() + seconds / 4
        stop, times = begin + seconds, []

        def work():
            connection = self.connect()
            while time.perf_counter() < stop:
                connection.ask()
                times.append(time.perf_counter())

        threads = [threading.Thread(target=work) for _ in range(connections)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        times = sorted(at for at in times if begin <= at < stop)
        # Answers come in batches: from the end of one of the first to the end of one of the last.
        gap = lambda index: times[index + 1] - times[index]
        first = max(range(min(connections, len(times) // 2)), key=gap)
        last = max(range(max(len(times) - connections, len(times) // 2) - 1, len(times) - 1), key=gap)
        return (last - first) / (times[last] - times[first])

    def single(self, seconds):
        """Latencies of one request at a time."""
        connection, times, start = self.connect(), [], time.perf_counter()
        while time.perf_counter() < start + seconds or len(times) < 20:
            times.append(connection.ask())
        return times

    def open_loop(self, rate, seconds, poisson):
        """Latencies from the time at which each request should have left."""
        dice = random.Random(0)
        due, times, errors = queue.Queue(), [], []

        def work(connection):
            while (at := due.get()) is not None:
                try:
                    connection.ask()
                    times.append(time.perf_counter() - at)
                except (OSError, RuntimeError) as error:
                    errors.append(error)
                    connection = self.connect()

        connections = [self.connect() for _ in range(24)]
        threads = [threading.Thread(target=work, args=(connection,)) for connection in connections]
        [thread.start() for thread in threads]
        at = time.perf_counter()
        end = at + seconds
        while at < end:
            time.sleep(max(0.0, at - time.perf_counter()))
            due.put(at)
            at += dice.expovariate(rate) if poisson else 1 / rate
        [due.put(None) for _ in threads]
        [thread.join() for thread in threads]
        if errors:
            sys.exit(f"{len(errors)} requests failed: {errors[0]}")
        return times

    def close(self):
        self.process.terminate()
        if self.process.wait() != 0:
            sys.exit("the server did not end cleanly")


def bench(arguments, seconds):
    command = [arguments.binary, "bench", "-m", arguments.model, "-b", str(arguments.batch), "--seconds", str(seconds),
               "--picture", arguments.picture, "--json"]
    output = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return output[0]["infer_samples_per_sec"]


def quantile(times, share):
    times = sorted(times)
    return times[min(len(times) - 1, int(share * len(times)))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default="target/release/cardinal")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--picture", default="assets/chelsea.jpg")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--delay-ms", type=float, default=2.0)
    parser.add_argument("--seconds", type=float, default=6.0, help="for each measurement")
    parser.add_argument("--samples", type=int, default=200, help="requests at half load, at least")
    parser.add_argument("--rounds", type=int, default=2, help="of saturation beside bench")
    parser.add_argument("--json", metavar="FILE", help="write the figures to a file too")
    parser.add_argument("serve", nargs="*", help="more flags for the server, after --")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "model.safetensors")
        subprocess.run([arguments.binary, "compile", "-m", arguments.model, "--untrained", "-o", file],
                       check=True, capture_output=True)
        http, plain = [], []
        for _ in range(arguments.rounds):
            plain.append(bench(arguments, arguments.seconds))
            server = Server(arguments, file)
            http.append(server.saturate(2 * arguments.batch, arguments.seconds))
            server.close()
        server = Server(arguments, file)
        server.single(1)
        single = server.single(arguments.seconds)
        half = max(http) / 2
        # Of fewer than a few hundred, the 99th in a hundred is but the slowest.
        long = max(1.5 * arguments.seconds, arguments.samples / half)
        even = server.open_loop(half, long, poisson=False)
        random_times = server.open_loop(half, long, poisson=True)
        server.close()
    median = statistics.median(single)
    bound = 2 * median + arguments.delay_ms / 1e3
    figures = {
        "model": arguments.model, "batch": arguments.batch, "delay_ms": arguments.delay_ms,
        "bench_per_second": plain, "http_per_second": http, "share": max(http) / max(plain),
        "single_ms": {"median": 1e3 * median, "p99": 1e3 * quantile(single, 0.99)},
        "half_load_per_second": half, "bound_ms": 1e3 * bound,
        "even_ms": {"median": 1e3 * statistics.median(even), "p99": 1e3 * quantile(even, 0.99)},
        "poisson_ms": {"median": 1e3 * statistics.median(random_times), "p99": 1e3 * quantile(random_times, 0.99)},
    }
    print(f"{arguments.model}, batch {arguments.batch}, {arguments.picture}")
    print(f"  bench with decoding   {max(plain):8.1f} images/s   (of {', '.join(f'{x:.1f}' for x in plain)})")
    print(f"  HTTP at saturation    {max(http):8.1f} images/s   (of {', '.join(f'{x:.1f}' for x in http)})")
    print(f"  share                 {100 * figures['share']:8.1f} %          (target: 90)")
    print(f"  one at a time         {1e3 * median:8.2f} ms median, {figures['single_ms']['p99']:.2f} ms p99")
    print(f"  half load, even       {figures['even_ms']['median']:8.2f} ms median, {figures['even_ms']['p99']:.2f} ms p99"
          f"   (target: p99 at most {1e3 * bound:.2f})")
    print(f"  half load, at random  {figures['poisson_ms']['median']:8.2f} ms median, "
          f"{figures['poisson_ms']['p99']:.2f} ms p99")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
