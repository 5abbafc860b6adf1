"""Two grammars of lines that describe no music: comments, promotion, credits, and descriptions of other things.

They share no sentence and hardly a phrase, so a classifier trained on lines of one is tested on lines of the other.
A grammar maps a symbol to its expansions; ``{symbol}`` in an expansion is replaced in turn.
"""

from __future__ import annotations

import random
import re

TRAIN = {
    "line": ["{comment}"] * 3
    + [f"{{{kind}}}" for kind in ("musical", "promo", "credit", "bio", "plot", "dish", "lyric")],
    "comment": [
        "who is still {doing} this in {year}{end}",
        "{person} showed me this {when} and now I can't stop{end}",
        "I was {doing} this when {event}{end}",
        "{greeting} from {place}, {wish}{end}",
        "this reminds me of {person} and {thing}{end}",
        "can't believe this is already {number} years old{end}",
        "like this if you are {doing} this {when}{end}",
        "{number} people who disliked this have {insult}{end}",
        "nobody: {person}: {exclaim}",
        "{exclaim}, I needed this {when}{end}",
        "please do {thing} next{end}",
        "where can I find {thing} from {time}?",
        "at {time} you can see {person} laughing{end}",
        "my {number} year old asks for this {when}{end}",
        "{person} cried when {event}{end}",
        "the part at {time}, {exclaim}{end}",
        "does anyone know if {event}?",
        "I came here because of {thing}{end}",
    ],
    "musical": [
        "I bought a {instrument} because of {person}{end}",
        "{person} plays {instrument} better than this and is {number}{end}",
        "what {instrument} is that at {time}?",
        "my {instrument} teacher hates {genre} and it shows{end}",
        "I have played {instrument} for {number} years and still can't do this{end}",
        "{genre} died in {year}, change my mind",
        "{genre} fans, where are you{end}",
        "tabs for the {instrument} please{end}",
        "{person} only listens to {genre} since {event}{end}",
        "the {instrument} player looks like {person}{end}",
    ],
    "promo": [
        "get {number} percent off {thing} with the code in my profile",
        "new episode every {day}, {plea}",
        "our {genre} night is back on {day}, entry is {number} euros",
        "learn {instrument} in {number} weeks, {plea}",
        "{plea} and win {thing}",
        "we ship {thing} worldwide, orders close on {day}",
        "{number} {genre} loops for your next project, {plea}",
    ],
    "credit": [
        "{instrument}: {name}. {instrument}: {name}.",
        "written by {name} and {name} in {place}",
        "recorded in {place} by {name}, {year}",
        "camera by {name}, edited by {name}",
        "released on {day}, catalogue number {number}",
    ],
    "bio": [
        "{name} was born in {place} and worked as a {job} until {year}",
        "the band has toured {place} and {place} and won a prize in {year}",
        "{name} joined the group in {year} after {event}",
        "a former {job}, {name} now lives in {place}",
    ],
    "plot": [
        "a {trait} {job} travels to {place} to find {thing}",
        "after {event}, a {trait} {job} has one night to save {person}",
        "in {place}, {number} strangers discover that {event}",
        "a {mood} story about a {job} and {person}",
        "the {mood} second act leads to a {mood} ending in {place}",
    ],
    "dish": [
        "{cook} the {food} {manner} until it turns golden",
        "add the {food} and {cook} for {number} minutes",
        "a {mood} dish with {food} and a touch of {food}",
        "{cook} {food} with {food}, then serve it {mood}",
    ],
    "lyric": [
        "oh {lover}, take me back to {place} tonight",
        "I lost my {keepsake} in the rain, {lover}, call my name",
        "we were young and {mood} in {place}",
        "give me your {keepsake}, I give you mine",
        "don't you {cry}, {lover}, don't you {cry} for me",
    ],
    "doing": ["listening to", "watching", "playing", "hearing", "humming"],
    "year": ["2014", "2016", "2018", "2019", "2021", "2022", "2024"],
    "end": ["", "", "", "!", "!!", " lol", " haha", " ❤", "..."],
    "person": ["my brother", "my grandmother", "my boss", "this guy", "our dog", "my ex", "the barber", "my flatmate"],
    "when": ["last night", "every morning", "at work", "in the car", "today", "during lunch", "before bed"],
    "event": [
        "my son was born",
        "we moved house",
        "the power went out",
        "I got fired",
        "the war ended",
        "she said yes",
    ],
    "greeting": ["greetings", "hello", "love", "hugs", "hi"],
    "place": ["Brazil", "Warsaw", "a small island", "Manila", "the north of Spain", "Texas", "Cairo", "Osaka"],
    "wish": ["stay safe", "you are the best", "come and visit us", "keep going", "thank you for everything"],
    "thing": [
        "that film",
        "the red jacket",
        "my old school",
        "a free shirt",
        "the missing ring",
        "season two",
        "a map",
    ],
    "number": ["3", "5", "7", "12", "20", "31", "45", "90", "200"],
    "insult": ["no taste", "no heart", "broken speakers", "lost a bet"],
    "exclaim": ["wow", "oh my god", "chills", "I'm dead", "no way", "just wow", "what a legend"],
    "time": ["0:41", "1:15", "2:03", "3:30", "4:12"],
    "instrument": ["guitar", "piano", "drums", "bass", "violin", "saxophone", "keyboard", "flute"],
    "genre": ["jazz", "metal", "techno", "folk", "hip hop", "rock", "disco", "punk"],
    "day": ["Monday", "Friday", "Sunday", "the first of June", "Christmas Eve"],
    "plea": [
        "tell your friends",
        "leave a comment",
        "hit the bell",
        "sign up now",
        "see my page",
        "support the channel",
    ],
    "name": ["Ada Moss", "Jon Pell", "Rita Vane", "K. Okoro", "Luis Sarto", "M. Brandt", "Yuki Oda"],
    "job": ["baker", "teacher", "sailor", "detective", "nurse", "clown", "farmer", "lawyer"],
    "trait": ["lonely", "brave", "retired", "clumsy", "young", "bitter"],
    "mood": ["dark", "warm", "tense", "slow", "bright", "quiet", "wild", "sweet", "dramatic"],
    "cook": ["fry", "stir", "bake", "roast", "simmer"],
    "food": ["onions", "rice", "garlic", "beans", "lemon", "butter", "chicken", "mushrooms"],
    "manner": ["slowly", "gently", "on high heat", "softly"],
    "lover": ["baby", "darling", "my love", "honey"],
    "keepsake": ["heart", "coat", "crown", "letters"],
    "cry": ["cry", "wait", "run"],
}

TEST = {
    "line": ["{remark}"] * 3
    + [f"{{{kind}}}" for kind in ("player", "shop", "sleeve", "rating", "forecast", "glass", "verse")],
    "remark": [
        "me pretending to {chore} while this is on{mark}",
        "{relative} walked in and asked why I was {state}{mark}",
        "day {count} of asking for {wanted}",
        "how do I explain to {relative} that {fact}{mark}",
        "not {relative} {caught} to this{mark}",
        "if {relative} sees this, {message}{mark}",
        "plot twist: {fact}",
        "{count} replays later and {fact}{mark}",
        "legend says he is still {caught}{mark}",
        "I used to skip this one, now {fact}{mark}",
        "came for {wanted}, stayed for the {odd}{mark}",
        "the {odd} at {clock} killed me{mark}",
        "why does {relative} look so {state} here{mark}",
        "someone give this man {wanted}{mark}",
        "reading this during {lesson} and {fact}{mark}",
    ],
    "player": [
        "the {tool} guy deserves {wanted}{mark}",
        "my {tool} has been in the attic since {lesson}{mark}",
        "sold my {tool} to pay for {wanted}{mark}",
        "{style} people argue more than {relative}{mark}",
        "tried this on {tool} and {fact}{mark}",
        "is the {tool} rented or {odd}{mark}",
        "{relative} thinks {style} is a kind of cheese{mark}",
    ],
    "shop": [
        "used {tool} for sale, {count} or best offer",
        "workshop: {style} for absolute beginners, {count} seats left",
        "{wanted} now in stock, members pay less",
        "become a member and get {wanted}",
        "doors open at {clock}, no re-entry, bring {wanted}",
    ],
    "sleeve": [
        "{tool} by {artist}, everything else by {artist}",
        "artwork {artist}, photographs {artist}",
        "pressed in an edition of {count}, insert by {artist}",
        "thanks to {artist}, {artist} and {relative}",
        "{artist} appears by permission of the publisher",
    ],
    "rating": [
        "the {ware} is {feel} and {feel}, but {flaw}",
        "{feel} {ware}, arrived in {count} days, {flaw}",
        "{count} out of ten, the {ware} feels {feel}",
        "would buy this {ware} again, {feel} and easy to clean",
        "after {count} weeks the {ware} broke, {flaw}",
    ],
    "forecast": [
        "{feel} winds in the {side}, {sky} later",
        "{sky} over the {side}, turning {feel} by night",
        "a {feel} day with {sky} and up to {count} degrees",
        "{sky} builds slowly in the {side} and fades by morning",
    ],
    "glass": [
        "a {feel} red with notes of {note} and {note}",
        "{feel} on the nose, {feel} on the palate, long finish",
        "pair this {feel} ale with {note}",
        "the brewery's {feel} winter beer, {count} bitter units",
    ],
    "verse": [
        "I'm a {state} man on a {odd} road, mama",
        "they took my {odd} but they never took my pride",
        "sing it to the {side}, sing it to the sea",
        "one more kiss and I'm gone, gone, gone",
        "you were {state}, I was wrong, now the {odd} is gone",
    ],
    "chore": ["fold laundry", "study chemistry", "listen in the meeting", "do my taxes", "sleep"],
    "mark": ["", "", "", " 😂", " fr", "!", " 😭😭", " tbh"],
    "relative": ["my aunt", "the postman", "my therapist", "our landlord", "grandpa", "the whole class", "my crush"],
    "state": ["crying", "smiling", "angry", "broke", "lost", "lonely", "tired"],
    "count": ["2", "9", "14", "23", "40", "61", "150", "500"],
    "wanted": [
        "a part two",
        "an award",
        "the tote bag",
        "a longer version",
        "a bigger stage",
        "earplugs",
        "a sandwich",
    ],
    "fact": [
        "I forgot my stop",
        "it was all a dream",
        "nobody knew",
        "I missed the train",
        "we lost the match",
        "it works",
    ],
    "caught": ["vibing", "doing the dishes", "nodding", "waiting", "running"],
    "message": ["call me", "I'm sorry", "you owe me a tenner", "the keys are under the mat"],
    "odd": ["moustache", "goat", "curtain", "borrowed", "hat", "long", "neon sign"],
    "clock": ["0:22", "1:47", "2:58", "19:30", "20:00"],
    "lesson": ["maths", "the lockdown", "history class", "the merger", "high school"],
    "tool": ["cello", "trumpet", "synth", "banjo", "clarinet", "drum machine", "accordion", "harp"],
    "style": ["opera", "reggae", "house", "blues", "country", "trance", "salsa", "bluegrass"],
    "artist": ["Tomas Weil", "P. Anand", "Greta Holm", "the Lindgren family", "Q. Abara", "Sam Dow"],
    "ware": ["backpack", "kettle", "desk lamp", "mattress", "speaker", "keyboard cover", "office chair", "tent"],
    "feel": ["soft", "crisp", "heavy", "bright", "mellow", "harsh", "light", "smooth", "warm", "deep", "mild"],
    "flaw": [
        "the manual is useless",
        "the zip jams",
        "it smells of glue",
        "support never wrote back",
        "one leg is short",
    ],
    "side": ["north", "valley", "coast", "mountains", "south-east"],
    "sky": ["thunder", "drizzle", "dense fog", "snow", "sunshine", "high clouds"],
    "note": ["plum", "vanilla", "smoke", "roast lamb", "pepper", "hay", "old cheese"],
}


def write_lines(grammar: dict[str, list[str]], count: int, *, seed: int) -> list[str]:
    """``count`` distinct lines of a grammar; the same seed, the same lines."""
    draw = random.Random(seed)
    lines: dict[str, None] = {}
    while len(lines) < count:
        line = "{line}"
        while symbol := re.search(r"{(\w+)}", line):
            line = line[: symbol.start()] + draw.choice(grammar[symbol[1]]) + line[symbol.end() :]
        lines[line] = None
    return list(lines)
