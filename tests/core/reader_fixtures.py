"""Official files of every public data set, made by hand in the exact layout."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from mulan_core.readers.magnatagatune import BROKEN

SEGMENTS = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=2, num_segs=2, num_unique_labels=3, num_positive_labels=3
# YTID, start_seconds, end_seconds, positive_labels
-aB_xyz0123, 30.000, 40.000, "/m/04rlf,/m/06cqb"
ab_Xyz-0123, 0.000, 9.000, "/m/09x0r"
"""

LABELS = """index,mid,display_name
0,/m/09x0r,"Speech"
1,/m/04rlf,"Music"
2,/m/06cqb,"Reggae, roots"
"""

ONTOLOGY = [
    {"id": "/m/04rlf", "name": "Music", "child_ids": ["/m/0gen"], "restrictions": []},
    {"id": "/m/0gen", "name": "Music genre", "child_ids": ["/m/06cqb"], "restrictions": ["abstract"]},
    {"id": "/m/06cqb", "name": "Reggae, roots", "child_ids": [], "restrictions": []},
    {"id": "/m/0hum", "name": "Human sounds", "child_ids": ["/m/09x0r"], "restrictions": ["abstract"]},
    {"id": "/m/09x0r", "name": "Speech", "child_ids": [], "restrictions": []},
]

MUSICCAPS = "ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id,is_balanced_subset,"

MUSICCAPS += """is_audioset_eval
-aB_xyz0123,30,40,"/m/04rlf,/m/06cqb","['slow beat', ""singer's voice""]","A slow song,
with a beat.",4,False,True
Zz_________,10,20,/m/04rlf,"['calm']","It is calm.",4,False,False
"""

HEADER = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS"


def write(folder, files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode())
    return folder


AUDIOSET = {"eval_segments.csv": SEGMENTS, "class_labels_indices.csv": LABELS, "ontology.json": json.dumps(ONTOLOGY)}

ANNOTATIONS = (
    '"clip_id"\t"no voice"\t"beat"\t"beats"\t"mp3_path"\n'
    '"2"\t"1"\t"1"\t"1"\t"f/some_band-first_album-01-a_song-30-59.mp3"\n'
    '"6"\t"0"\t"0"\t"1"\t"c/some_band-first_album-02-b_song-0-29.mp3"\n'
    '"7"\t"0"\t"0"\t"0"\t"0/other-x-01-y-0-29.mp3"\n'
    '"8"\t"0"\t"0"\t"0"\t""\n'
    f'"9"\t"0"\t"1"\t"0"\t"{BROKEN[0]}"\n'
)


def jamendo(**parts):
    """CRLF and ragged, as every official file is."""
    return {
        f"splits/split-0/autotagging_genre-{part}.tsv": "\r\n".join([HEADER, *parts.get(part, ())]) + "\r\n"
        for part in ("train", "validation", "test")
    }


TRACK = "track_0000948\tartist_000087\talbum_000149\t48/948.mp3\t212.7\tgenre---easylistening\tgenre---rock"

FMA = (
    ",album,artist,set,set,track,track,track,track,track,track\n"
    ",title,name,split,subset,genre_top,genres,information,license,tags,title\n"
    "track_id,,,,,,,,,,\n"
    '2,AWOL,A Name,training,small,Hip-Hop,[21],"<p>Loud &amp; fast,</p>\n<p>live</p>",CC BY,[],Food\n'
    "141,Way,B Name,validation,large,,\"[21, 38]\",,,\"['lo-fi', 'tape']\",Gravity\n"
)

GENRES = "genre_id,#tracks,parent,title,top_level\n21,12693,0,Hip-Hop,21\n38,38154,0,Experimental,38\n"

DESCRIBER = (
    "caption_id,track_id,caption,is_valid_subset,familiarity,artist_id,album_id,path,duration\n"
    "770, 1093792, Slow-paced pop ballad for an early morning walk., True, 1, 440692, 130370, 92/1093792.mp3, 197\n"
    '771, 1093792, "A ballad, sung.", , 1, 440692, 130370, 92/1093792.mp3, 197\n'
    "772, 948, Loud., , 2, 87, 149, 48/948.mp3, 212\n"
)

CAPTIONS = {f"caption_{kind}": f"By {kind}." for kind in ("writing", "summary", "paraphrase", "attribute_prediction")}


def parquet(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)


MUSIC4ALL = {
    "id_information.csv": "id\tartist\tsong\talbum_name\n0009fFIM1eYThaPg\tA Band\tA, Song\tAlbum\nx1\tB\tC\tD\n",
    "id_genres.csv": "id\tgenres\n0009fFIM1eYThaPg\tpop,soul\nx1\trock\n",
    "id_tags.csv": "id\ttags\n0009fFIM1eYThaPg\tpop,feel: good\n",
}


META = (
    "TRACK_ID\tARTIST_ID\tALBUM_ID\tTRACK_NAME\tARTIST_NAME\tALBUM_NAME\tRELEASEDATE\tURL\r\n"
    "track_0000948\tartist_000087\talbum_000149\tA Song\tA Band\tAn Album\t2004-12-28\thttp://example.org/948\r\n"
)
INFO = (
    '"clip_id"\t"track_number"\t"title"\t"artist"\t"album"\t"url"\t"segmentStart"\t"segmentEnd"\t"original_url"\t'
    '"mp3_path"\n"2"\t"1"\t"A Song"\t"Some Band"\t"First"\t"u"\t"30"\t"59"\t"o"\t"f/x.mp3"\n'
)
