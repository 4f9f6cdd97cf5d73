import pytest

from stateset_agents.api.stop_texts import StopTexts


def shown(stops: list[str], pieces: list[str]) -> list[str]:
    """What a stream lets through, piece by piece."""
    cutter, text, done, parts = StopTexts(stops), "", 0, []
    for piece in pieces:
        text += piece
        cut = cutter.end_of(text)
        end = cutter.safe(text) if cut is None else cut
        parts.append(text[done:end])
        done = end
        if cut is not None:
            return parts
    return [*parts, text[done:]]


def test_a_reply_is_cut_before_the_stop_text_and_what_follows_is_lost():
    assert shown(["END"], ["one two END three"]) == ["one two "]


def test_a_beginning_of_a_stop_text_is_held_back_until_it_is_one_or_is_none():
    assert shown(["END"], ["a E", "N", "D b"]) == ["a ", "", ""]
    assert shown(["END"], ["a E", "N", "T b"]) == ["a ", "", "ENT b", ""]


def test_the_earliest_of_several_stop_texts_cuts():
    assert shown(["two", "one"], ["zero one two"]) == ["zero "]


def test_a_stop_text_that_begins_again_in_its_middle_is_found():
    assert shown(["aab"], ["x", "a", "a", "a", "b"]) == ["x", "", "", "a", ""]


def test_without_stop_texts_everything_is_shown_at_once():
    assert shown([], ["a", "b"]) == ["a", "b", ""]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_a_stream_shows_what_a_whole_reply_shows_however_it_is_cut_into_pieces(size: int):
    text = "to be or not to be: that is the question; to bee or not"
    stops = ["to bee", "that was", "question?"]
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert "".join(shown(stops, pieces)) == "to be or not to be: that is the question; "
