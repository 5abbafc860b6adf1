"""Vocabulary of the text filters, as data: music words, describing words, boilerplate and signs of chatter."""

from __future__ import annotations

import re

_MUSIC = """
808 a-cappella acapella acappella accelerando accordion adagio afrobeat allegro alto ambient americana andante
anthem armonica arpeggiated arpeggio arrangement atonal autoharp autotune autotuned bach backbeat backbeats
bagatelle bagpipe balalaika ballad bandoneon banjo bansuri barbershop baritone baroque bass bassist bassline
bassoon beat beatbox beatboxing bebop beethoven bell bhangra black-metal bluegrass blues bluesy bodhran bolero
bongo boogie bossa bourree bouzouki bpm brass breakbeat breakcore bridge cadence calypso canon cantata carnatic
carol carols celesta celeste cello celtic chanson chant chanting chill-out chillout chillwave chime chiptune
choir choirs chopin choral chord chordal chorus chromatic clap clarinet classical claves clavichord clavinet
composition concertina concerto conga contrabass cornet counterpoint country cowbell crescendo crescendos crunk
cue cumbia cymbal dancehall delay diatonic didgeridoo diminuendo disco dissonance dissonant distorted distortion
ditty dixieland djembe dnb doom doowop downbeat downtempo drill drone drum drum-and-bass drummer drumming dub
dubstep duduk duet dulcimer easy-listening echo edm electro electroclash electronic electronica emo ensemble
erhu etude eurodance fado falsetto fiddle filter fingerpicked fingerpicking flamenco flugelhorn fluglehorn flute
folk fortissimo fretless fugue funk funky fuzz gabber gagaku gamelan garage gavotte gigue glissando glockenspiel
gong gospel grime groove grunge guiro guitar guitarist gurdy guzheng handclap hardcore hardstyle harmonic
harmonica harmonies harmony harp harpsichord hi-hat highlife hihat hip-hop hiphop honky-tonk honkytonk hook horn
hornpipe hum humming hurdy hymn idm impromptu improvisation improvised indie industrial instrumental
instrumentation instrumented interlude intro jam jazz jig jingle jungle kalimba kazoo keyboard kick kit klezmer
kora koto krautrock kuduro largo latin legato leitmotif lo-fi lofi loop lullabies lullaby lute lyre lyric
lyrical madrigal major mambo mandolin maraca march mariachi marimba marimbas mazurka medley mellotron melodeon
melodic melodica melody merengue metal metalcore meter metronome microtonal minor minuet mix modal monophonic
motet motif motive motown mozart musicbox musique muzak newage ney nocturne oboe ocarina octave offbeat opera
operatic opus oratorio orchestra orchestral orchestrated orchestration organ ostinato oud outro overture pad
pentatonic percussion percussive phonk pianissimo pianist piano piccolo picking pipa pipes pitch pizzicato
plucked polka polyphonic polyrhythm polyrhythmic pop prelude presto prog progression progressive psalm psaltery
psychedelic punk qawwali quartet raga ragtime rap rapping recorder reel refrain reggae reggaeton remix rendition
requiem reverb rhapsody rhodes rhythm rhythmic riff ritardando rnb rock rockabilly romantic rondo rumba salsa
samba sample sampled santoor sarabande sarod sax saxophone scale scat scherzo schlager scored scratching shaker
shakuhachi shamisen shoegaze shuffle sing sing-along singalong singer singing sitar ska skiffle slap snap snare
soca solo sonata sonatina soprano soul soundscape soundtrack spinet spiritual squeezebox stab staccato steel
steelpan string strum strummed strumming sub-bass sung surf swing symphonic symphony syncopated syncopation
synth synthesiser synthesizer synthwave tabla tambourine tango tarantella techno tempo tenor texture theremin
thrash timbale timbral timbre timpani toccata tom toms tonal tone trance trap tremolo trio trombone trumpet tuba
turntable two-step ukulele underscore vaporwave verse vibes vibraphone vibrato viola violin vivaldi vocal
vocalist vocoder voice waltz waterphone whistle whistling winds wobble woodwind wurlitzer xylo xylophone yodel
yodeling zither zurna
"""

_DESCRIBING = """
accelerates accompanied accompaniment accompanying acoustic acoustics action adventure african aggressive airy
alien amateur ambiance ambience ambiences amplified analog analogue ancient anger angry anthemic arabic asian
atmosphere atmospheric background backing battle bittersweet bizarre bleak bold bombastic booming boomy bouncy
brash brazilian breathy bright brightness brisk brooding bubbly building builds busy calm calming calmness
caribbean cartoon cartoonish catchy celebratory chaotic chase cheerful cheery childlike christmas chugging
cinematic cinematography clean clear climax club cold comedic comedy comic comical complex compressed confident
contemplative cosmic creepy crisp crunchy cuban cute dance danceable dancing dark darkness deep deliberate
delicate dense desolate detective digital disconcerting distant distortion-heavy documentary dramatic dreamlike
dreamy dreary driving earthy easy-going echoing eerie electric elegant emotional enchanted ends energetic energy
epic ethereal evil excitement exciting exhilarating exotic fades fairy fantasy fast fast-paced fear feel-good
female ferocious festive fierce film floating flow flowing folksy foreboding fragile frantic french frenetic
full fun funny furious futuristic fuzzy galactic galloping game gaming gentle ghostly glistening glitchy
glittering gloomy goofy graceful gradual gradually grand grandiose gritty grooving groovy halloween happiness
happy harsh haunting hawaiian hazy heartbroken heartfelt heavy hectic hellish heroic hi-fi high holiday hollow
hope hopeful horror humorous husky hypnotic indian innocent inspiring intense intensity introspective
invigorating irish jangly jaunty jazzy joy joyful joyous laid-back laidback layered lead leisurely light
lightness live lively lonely lonesome longing loopable looped looping loops loose loud lounge low lush magical
majestic male manic marching mechanical medieval meditation meditative melancholia melancholic melancholy mellow
mellowed memorable menacing mid mid-tempo midtempo minimal minimalist moderate modern momentum mono monotone
monotonous mood motion mournful mournfully movement movie muffled mysterious mystical nasal noble noir noisy
nostalgia nostalgic odd ominous opens oriental overdriven panned party passionate pastoral patriotic peaceful
pensive peppy perky piercing playful plodding pompous pounding powerful pulse pulses pulsing punchy quality
quick quiet quirky raging rapid raspy rattling raw reflective regal regretful relax relaxation relaxed relaxing
release relentless repeated repeating repetitive resolve resolves resonant retro reverberant rhythmical rich
ringing rises robotic rocking rolling romance rough russian rustic sad sadness sassy saturated scary scene
sci-fi scottish section sections sensual sentimental serene serenity sexy shimmer shimmering shrill shuffling
silky silly simple sinister sleep sleepy slow slow-burning slow-paced slowly smooth snappy soaring soft softly
somber sombre soothing soothingly sorrow sorrowful spacey spacious spacy spanish sparkle sparkling sparse speedy
spooky sprightly spritely spy stately steady stereo stomping strange strikes striking studio subtle sultry
summery sunny surreal suspense suspenseful sustained sweeping sweet swell swells swinging swirling tearful
tender tenderness tense tension thick thin thoughtful thriller thrilling throbbing thumping tight tinkling
traditional trailer tranquil transition tribal trippy triumphant tropical tuned twangy twinkling uneasy uneven
unhurried unison unnerving up-beat up-tempo upbeat uplifting uptempo urban vibe vintage wacky warm warmth warped
wedding weird western western-style whimsical wintry wistful yoga zany
"""

_GENERIC = """
album audio band cover features featuring feel feeling genre hear house instrument key listen mode music musical
musician note piece play played playing plays recording score song sound sounding sounds theme track tune
version
"""

MUSIC: frozenset[str] = frozenset(_MUSIC.split())
"""Words that are hardly used but of music: voices, instruments, techniques, forms and genres."""

DESCRIBING: frozenset[str] = frozenset(_DESCRIBING.split())
"""Words of tempo, mood, colour, structure and use that also occur elsewhere; they count less."""

GENERIC: frozenset[str] = frozenset(_GENERIC.split())
"""Words that say a sentence is about music without saying anything of it; they count least."""

VOCABULARY: frozenset[str] = MUSIC | DESCRIBING | GENERIC
"""All of them; each word is in one set only."""

JOINING: frozenset[str] = frozenset(
    {"a", "an", "and", "by", "feat", "featuring", "from", "ft", "the", "vs", "with", "x"}
)
"""Words that may stand between and before the names of a track without adding to them."""

_BOILERPLATE = (
    # asking for attention
    r"(?:un)?subscribe[rd]?s?",
    r"like\s+and\s+share|share\s+this|hit\s+the\s+bell|smash\s+that|notification\s+squad|giveaway",
    r"follow\s+(?:me|us|him|her|them|on)|visit\s+(?:our|my)|(?:my|our|new)\s+(?:channel|video|upload)",
    r"thanks?\s+for\s+(?:watching|listening|the)|please\s+(?:like|share|comment|support|rate)",
    r"viral|trending|fyp|vlog|premiere|live\s?stream|must\s+(?:see|watch)",
    # selling and linking
    r"click\s+(?:here|the|below|on)|(?:all\s+)?links?\s+(?:in|below)|link\s*:|(?:free|high\s+quality)\s+downloads?",
    r"downloads?\s+(?:link|here|free)|out\s+now|pre-?order|buy\s+(?:it|on|now|here|the)|merch(?:andise)?|promo\s+code|use\s+code",
    r"(?:available|stream)\s+(?:it\s+)?(?:on|now|at)|tickets?|tour\s+dates|sponsor(?:ed)?|business\s+inquir\w+",
    r"spotify|itunes|youtube|instagram|facebook|twitter|tiktok|patreon|soundcloud|bandcamp",
    # what the file is
    r"official(?:\s+(?:music|lyrics?|hd))?\s+(?:video|audio|channel|clip|release|visuali[sz]er)|(?:music|lyrics?)\s+video",
    r"(?:with|in)\s+lyrics|lyrics\s+(?:in|on)|full\s+album|playlist|best\s+of|re-?master(?:ed)?|prod(?:uced)?\.?\s+by",
    r"(?:hd|hq|uhd)(?:\s+(?:video|audio|quality))?|(?:high|best)\s+quality(?:\s+(?:audio|video))?$|\d{3,4}p|[48]k",
    r"^lyrics?$|(?:whatsapp|insta)\s+status",
    r"re-?upload(?:ed)?|upload(?:ed)?\s+by|new\s+upload|test\s+upload|untitled|unknown\s+artist|n/a|tb[ad]",
    # rights
    r"all\s+rights\s+reserved|(?:no\s+)?copyright(?:ed)?|royalty[\s-]free|licen[sc]ed?\s+(?:to|by|under)|©|℗",
    r"provided\s+to|auto-?generated|distributed\s+by|published\s+by|record\s+label|(?:do\s+not|don'?t)\s+(?:own|steal)",
)

BOILERPLATE: re.Pattern[str] = re.compile(rf"(?<!\w)(?:{'|'.join(_BOILERPLATE)})(?!\w)", re.I)
"""Phrases about the upload and its promotion, in tags and in descriptions."""

_PROGRAMS = (
    r"LAME|lame(?=\s*v?\d)|Lav[fc]|libFLAC|libVorbis|libopus|SoX|Exact\s+Audio\s+Copy|EAC|FF[Mm]peg|Audacity|fre:ac|FreeRIP",
    r"iTunes|GarageBand|Logic\s+Pro(?:\s+X)?|Ableton(?:\s+Live)?|FL\s+Studio|Fruity\s*Loops|Cubase|Nuendo|REAPER|Reaper",
    r"Pro\s+Tools|Studio\s+One|Adobe\s+Audition|Sound\s+Forge|WaveLab|Renoise|LMMS|Reason|MuseScore|Sibelius|Finale",
    r"dB[Pp]oweramp|foobar2000|XLD|Max|MediaMonkey|MusicBee|Mp3tag|MP3Tag|MusicBrainz\s+Picard|Picard|WinLAME|CDex",
    r"Winamp|Windows\s+Media\s+Player|RealPlayer|HandBrake|Nero(?:AAC)?|qaac|QuickTime|GStreamer|youtube-dl|yt-dlp|Suno|Udio",
)
_BESIDE = (  # words before signs, as what matched is not given back
    r"\bv(?=\d)|\b(?:alpha|beta|encoder|codec|version|build|release|rev|for|on|the|and|reference|AAC|MP3|FLAC|CBR|VBR)\b"
    r"|\b(?:Windows|Linux|mac\s?OS|Mac|x64|x86|(?:32|64)-?bits?)\b|https?://\S+|www\.\S+|[\s\d.,;:/()+@-]"
)
_VERBS = r"(?:[Pp]rocessed|[Ee]ncoded|[Rr]ipped|[Cc]onverted"
PROGRAM: re.Pattern[str] = re.compile(
    rf"""^(?:iTun[A-Z]\w+\b.*                                  # iTunNORM, iTunSMPB, iTunPGAP
        |(?:[0-9A-Fa-f]{{8}}\s*){{2,}}                          # their blocks without the name
        |(?:{_VERBS}|[Cc]reated|[Mm]astered|[Gg]enerated|[Mm]ade|[Rr]ecorded|[Ee]xported)\s+(?:by|with|using|in|from)\s+)?
         (?:{_BESIDE})*+(?:\b(?:{"|".join(_PROGRAMS)})(?![A-Za-z])(?:{_BESIDE})*+)++
        |{_VERBS})\s+(?:by|with|using)\s+\S+(?:\s+\S+)?         # what only programs do, in a word or two
        |0x[0-9A-Fa-f]+|[0-9A-Fa-f-]{{32,}}                     # ids and checksums
        |[(\[<]?(?:[Nn]one|NONE|[Uu]nknown(?:\s+[Gg]enre)?|UNKNOWN|[Oo]ther|OTHER|[Nn]ull|NULL|[Uu]ndefined|[Dd]efault)[)\]>]?
        )$""",
    re.X | re.S,
)
"""What a program wrote, whole: an encoder's name, volume marks, checksums, a placeholder. A sentence that begins like
one is a sentence."""

_CHATTER = (
    r"lol|lmao|omg|wtf|rofl|(?:ha){2,}h?|wow|bro|dude|guys|pls|plz|please|thank(?:s|\s+you)|edit\s*:|nobody\s*:",
    r"first(?:\s+(?:comment|one|here))?\s*!|who(?:'s|\s+is|\s+else|\s+still)|any(?:one|body)|still\s+(?:here|listening)",
    r"(?:listening|watching)\s+(?:in|to|this)|here\s+(?:in|before|after)|20[12]\d|(?:brought|sent)\s+me|(?:came|got)\s+here",
    r"(?:greetings|hello|love|hi)\s+from|thumbs|(?:dis)?likes?\s+(?:if|button)|the\s+(?:dis)?likes|views|comments?|upload\w*",
    r"channel|video|legend|goosebumps|tears|cry|crying|cried|underrated|masterpiece|never\s+gets?\s+old|on\s+repeat|so\s+good",
    r"my\s+(?:mom|mum|dad|brother|sister|wife|husband|ex|friends?|boyfriend|girlfriend|dog|cat|kids?|son|daughter|childhood"
    r"|life|wedding|phone|car|playlist|favou?rite)",
    r"remember\s+when|when\s+i\s+was|where\s+can\s+i|(?:what(?:'s|\s+is)\s+the\s+|the\s+)?name\s+of\s+(?:this|the)|at\s+\d+\s*[ap]m",
    r"best\s+(?:song|track|tune|music|band|album|thing|part|one)\s+(?:ever|of|in|i)|back\s+in|years?\s+(?:ago|later|old)",
    r"rip|rest\s+in\s+peace|miss\s+(?:this|you|him|her|those)|check\s+out|love\s+(?:this|it|you)|can'?t\s+stop|ads?|algorithm",
    r"\d{1,2}:\d{2}|headphone\s+users|happy\s+birthday",
)

CHATTER: re.Pattern[str] = re.compile(rf"(?<!\w)(?:{'|'.join(_CHATTER)})(?!\w)", re.I)
"""Signs of comment-section chatter; each counts against the sentence it is in."""
