"""A file as the reader that its content asks for, or why it cannot be read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal

from mulan_core.audio import RATES_HZ
from mulan_core.audio.containers import Container, UnreadableError, begun, recognise
from mulan_core.audio.ffmpeg import FfmpegReader
from mulan_core.audio.sndfile import SndfileReader
from mulan_core.errors import UserError, without_secrets
from mulan_core.files import why_no_file

Reason = Literal["missing", "empty", "undecodable", "too_short", "too_long", "silent", "not_finite", "refused"]
Source = bytes | str | Path | BinaryIO
Reader = SndfileReader | FfmpegReader


class AudioError(UserError):
    """Audio that cannot be used.

    Attributes:
        reason: the code, one of ``Reason``.
        detail: the sentence for people.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)  # both in args, so that the error survives pickling between processes
        self.reason = reason
        self.detail = without_secrets(detail)

    def __str__(self) -> str:
        return self.detail


@contextmanager
def open_audio(source: Source) -> Iterator[Reader]:
    """The reader that the content asks for; what it cannot read becomes an ``AudioError``."""
    with ExitStack() as opened:
        name = "the audio"
        if isinstance(source, str | Path):
            path = Path(source)
            name = f"{path}"
            if reason := why_no_file(path):
                raise AudioError("missing", reason)
            file: BinaryIO = opened.enter_context(path.open("rb"))
        else:
            file = io.BytesIO(source) if isinstance(source, bytes) else source
        container = recognise(file)
        if file.seek(0, io.SEEK_END) == 0:
            raise AudioError(
                "empty", f"the file {name} is empty" if name != "the audio" else f"{name} is empty: it has no bytes"
            )
        try:
            reader = _reader(file, container)
            opened.callback(reader.close)
            if not RATES_HZ[0] <= reader.rate_hz <= RATES_HZ[1]:
                raise AudioError("undecodable", f"the audio claims a sample rate of {reader.rate_hz} Hz")
            yield reader
        except UnreadableError as error:
            raise AudioError("undecodable", container.sentence(name, str(error))) from error


def _reader(file: BinaryIO, container: Container) -> Reader:
    if container.ffmpeg_format == "":
        raise UnreadableError("it is no audio")
    content = begun(file, container)
    sndfile: SndfileReader | None = None
    if container.trust != "nothing":
        with suppress(UnreadableError):
            sndfile = SndfileReader(content, container)
            if sndfile.channels <= 2:
                return sndfile
    try:
        return FfmpegReader(content, container)  # it knows which channel is the centre
    except UnreadableError:
        if sndfile is None:
            raise
        return SndfileReader(content, container)
