"""libsndfile, by soundfile: WAV, FLAC, Ogg, MP3 and AIFF whose length is sure. It seeks to the very sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soundfile

from mulan_core.audio.containers import Container, UnreadableError

_BLOCK_SAMPLES = 1 << 20  # over all channels: 4 MiB of float32
_UNKNOWN_FRAMES = 2**63 - 1  # libsndfile's answer for a FLAC written to a pipe, whose header has no length


class _ForwardOnly(soundfile.SoundFile):
    """Never seeks: soundfile seeks after each read, which fails at the end of a file of unknown length."""

    def seekable(self) -> bool:
        return False


class SndfileReader:
    """A file that libsndfile decodes.

    Args:
        file: from where the container begins; stays open.
        kind: what the content says it is.

    Attributes:
        rate_hz: samples per second.
        channels: how many.
        decoder: libsndfile with the container's name.
        frames: length in frames; null where none is sure.

    Raises:
        UnreadableError: if libsndfile does not read it.
    """

    def __init__(self, file: BinaryIO, kind: Container) -> None:
        file.seek(0)
        try:
            self._file = _ForwardOnly(file)
        except (RuntimeError, TypeError, ValueError) as error:
            raise UnreadableError("it cannot be opened") from error
        self.rate_hz, self.channels = int(self._file.samplerate), int(self._file.channels)
        self.decoder = f"libsndfile, {kind.name}"
        self.frames = None if self._file.frames >= _UNKNOWN_FRAMES or kind.trust != "length" else int(self._file.frames)

    def close(self) -> None:
        """Let go of the decoder."""
        self._file.close()

    def seek(self, frame: int) -> None:
        """Have ``blocks`` begin with this frame.

        Raises:
            UnreadableError: if the file does not seek, or not so far.
        """
        try:
            self._file.seek(frame)
        except RuntimeError as error:
            raise UnreadableError("it cannot seek") from error

    def blocks(self, most_frames: int | None = None) -> Iterator[tuple[np.ndarray, int, np.ndarray]]:
        """Audio from where it stands, float32 (frames, channels), with its rate and its channels' weights.

        Raises:
            UnreadableError: if it breaks off.
        """
        weights = np.full(self.channels, 1 / self.channels, np.float32)
        block_frames, num_frames = max(1, _BLOCK_SAMPLES // self.channels), 0
        while most_frames is None or num_frames < most_frames:
            wanted = block_frames if most_frames is None else min(block_frames, most_frames - num_frames)
            try:
                block = self._file.read(wanted, dtype="float32", always_2d=True)
            except RuntimeError as error:
                raise UnreadableError("it breaks off or is damaged") from error
            num_frames += len(block)
            if len(block):
                yield block, self.rate_hz, weights
            if len(block) < wanted:
                return
