"""The driver itself: it counts what an endpoint answers, keeps as many under way as told, and never asks twice."""

import asyncio
import json

from closed_loop import drive, infinity_body, new_texts, search_body


async def serve_and_drive(callers, **options):
    asked, at_once, most = [], 0, 0

    async def answer(reader, writer):
        nonlocal at_once, most
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                size = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                asked.append(json.loads(await reader.readexactly(size))["text"])
                number = len(asked)
                at_once += 1
                most = max(most, at_once)
                await asyncio.sleep(0.01)
                at_once -= 1
                if number % 5 == 0:
                    writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno")
                elif number % 7 == 0:
                    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
                elif number == 11:
                    break  # hangs up
                else:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        except asyncio.IncompleteReadError:
            pass
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        run = await drive(url, search_body, callers=callers, seconds=0.4, seed=1, **options)
    return run, asked, most


def test_it_counts_every_answer():
    run, asked, most = asyncio.run(serve_and_drive(4))
    assert most == 4 and len(set(asked)) == len(asked)
    assert sum(run.statuses.values()) == len(asked)
    assert run.statuses[200] == len(run.times_ms) > run.statuses[503] > 0
    assert run.statuses["IncompleteReadError"] == 1
    assert 9 < run.summary()["p50_ms"] < 200
    assert run.summary()["statuses"]["503"] == run.statuses[503]


def test_it_keeps_to_a_rate():
    _, asked, _ = asyncio.run(serve_and_drive(4, per_s=50))
    assert 10 <= len(asked) <= 24


def test_what_it_asks():
    text = new_texts(5)()
    assert text.endswith(" 5")
    assert json.loads(search_body(text)[1]) == {"text": text, "k": 10}
    assert json.loads(infinity_body("minilm")(text)[1]) == {"model": "minilm", "input": [text]}
