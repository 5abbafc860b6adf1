#!/usr/bin/env bash
# charset-normalizer: a CUE sheet of some 300 bytes is taken for another encoding, even among seven that are named.
#
# Guess:  with the encodings of music collections named (cp_isolation), the best guess of a whole sheet is right.
# Seen:   a Western sheet (cp1252) is cp1250, and a letter becomes another; a Japanese one (cp932) is cp1251 or, with
#         nothing named, cp1257. Only titles that are wholly in another script are told well.
# With:   charset-normalizer 3.5.2, Python 3.11 (30 November 2026)
# Ours:   mulan_core/data/encodings.py has a rule of its own.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet "charset-normalizer==3.5.2"
venv/bin/python - <<'PYTHON'
import sys

from charset_normalizer import from_bytes

NAMED = ["cp1252", "cp1251", "cp932", "gb18030", "euc_kr", "big5", "cp1250"]
ALBUMS = {"cp1252": ("Café del Mar", "José González", "Où es-tu été"), "cp932": ("Sakura 桜", "X JAPAN", "紅")}

wrong = 0
for encoding, (album, artist, song) in ALBUMS.items():
    sheet = (
        f'REM GENRE Pop\nPERFORMER "{artist}"\nTITLE "{album}"\nFILE "{artist} - {album}.wav" WAVE\n  TRACK 01 AUDIO\n'
        f'    TITLE "{album}"\n    PERFORMER "{artist}"\n    INDEX 01 00:00:00\n  TRACK 02 AUDIO\n    TITLE "{song}"\n'
        "    INDEX 01 03:00:00\n"
    )
    best = from_bytes(sheet.encode(encoding), cp_isolation=NAMED).best()
    same = best is not None and str(best) == sheet
    print(f"{encoding}: taken for {best and best.encoding}, {'the same text' if same else 'another text'}")
    wrong += not same
sys.exit(0 if wrong == len(ALBUMS) else 1)
PYTHON
