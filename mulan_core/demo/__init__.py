"""The demo corpus: arrangements composed by the program and played through a General-MIDI SoundFont.

``corpus.build_corpus`` writes audio, manifest and playlists. The rooms behind it: ``spec`` draws what a
track is, ``styles`` holds the musical tables, ``composer`` turns a spec into notes, ``soundfont`` and
``player`` turn notes into sound, ``texts`` and ``playlists`` write the words.
"""
