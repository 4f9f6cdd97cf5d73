"""The word lists of the heuristics.

Invariant: a function word says nothing of a topic in its language. One that names a thing in English ("hat", "son",
"war") is left out, so that no list of English keywords passes for a sentence of another language. Polite phrases are
English.
"""

from __future__ import annotations

from ..facts import stem

_ENGLISH = """
    a about after all also am an and any are as at be because been before both but by can could did do does done
    down each for from get gets got had has have he her here him his how i i'd i'll i'm i've if in into is it it's
    its just may me might more most much my no not now of off on once one only or other our out over own per she
    should so some such than that that's the their them then there these they they're this those through to too
    under until up us very was we we'll we're were what what's when where which while who why will with would yes
    you you'd you'll you're you've your"""
_GERMAN = """
    der die das den dem des ein eine einen einem einer eines und oder aber ist sind wird werden wurde haben kann sie er
    es wir ihr ihre ihren ihnen sich nicht auch nur noch im ins zum zur auf aus bei bis mit nach von vor zu für über
    um als wenn dass wie wo ab bitte"""
_FRENCH = """
    le la les un une des du de au aux et ou mais est sont a ont il elle nous vous votre vos ce cette ces ne pas que qui
    en dans avec sans sur sous par à se si leur on c'est n'est d'un d'une"""
_SPANISH = """
    el la los las un una unos unas y o pero es está están hay ha su sus se lo le les no que quién en de del al a
    con por para como más ya muy"""
_PORTUGUESE = """
    o os as um uma uns umas e ou mas é são está estão há seu sua seus suas não que em de do da dos das no na nos nas
    ao aos com sem por para como mais já muito"""
_ITALIAN = """
    il lo la i gli le un uno una e o ma è sono ha hanno si suo sua non che chi di del della dei delle al alla da dal
    dalla nel nella con senza su per come più già molto"""
_DUTCH = """
    de het een en of maar is zijn wordt worden heeft hebben kan hij zij wij uw hun niet ook nog in op aan bij naar uit
    voor tot als dat dit die er om te"""

FUNCTION_WORDS = frozenset(" ".join([_ENGLISH, _GERMAN, _FRENCH, _SPANISH, _PORTUGUESE, _ITALIAN, _DUTCH]).split())
"""Of seven languages that are written in Latin letters."""
LISTED_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789'äöüßàáâãæçèéêëìíîïñòóôõœùúûÿ")
"""What their words are written with."""

SERVICE_PHRASES = frozenset(
    stem(word)
    for word in """absolutely ahead ai anything apologies apologize apology appreciate ask asking assist assistance
    assistant assisting best certainly clarify concern concerns confusion contact course customer day dear definitely
    designed else ensure excellent experience feel free further glad gladly good great greetings happy hear hello help
    helpful helping hesitate hi hope hopefully important inconvenience information inquiry interest kind know language
    let like look looking make manner misunderstanding model moment need nice ok okay perfect please pleased pleasure
    possible possibly provide providing query question questions reach ready really regarding representative request
    resolve right satisfaction service sorry specific support sure team tell thank thanks there's today try
    understand understanding valued wait want way welcome well wonderful work""".split()
)
