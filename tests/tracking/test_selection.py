from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from faceswap.faces.detection import detect_hog
from faceswap.faces.dlib_backend import compute_embedding
from faceswap.faces.geometry import Box, Face
from faceswap.media.frame import Frame
from faceswap.tracking import selection
from faceswap.tracking.selection import Decisions, FaceSelector, select_faces
from faceswap.tracking.tracklog import Vote


def selected(*arguments, **options):
    """Yield each frame with the faces to swap."""
    for frame, kept, _ in select_faces(*arguments, **options):
        yield frame, kept


@pytest.fixture(scope="module")
def people(collins, collins_face, hopper):
    (hopper_face,) = detect_hog(hopper, 0.2)
    return {
        "collins": compute_embedding(collins, collins_face.landmarks),
        "hopper": compute_embedding(hopper, hopper_face.landmarks),
    }


@pytest.mark.parametrize(
    ("targets", "exclude", "expected"),
    [
        ((), (), {"collins", "hopper"}),
        (("collins",), (), {"collins"}),
        (("collins", "hopper"), (), {"collins", "hopper"}),
        ((), ("collins",), {"hopper"}),
        (("hopper",), ("collins",), {"hopper"}),
    ],
)
def test_target_of_respects_targets_and_exclusions(people, targets, exclude, expected):
    selector = FaceSelector((tuple(people[n] for n in targets),), tuple(people[n] for n in exclude))

    assert {name for name, found in people.items() if selector.target_of(found) == 0} == expected
    assert {selector.target_of(found) for found in people.values()} <= {0, None}


LIKE_0 = (np.zeros(1, np.float32),)  # references of a target whose embedding is 0


def clip_of(*tracks):
    """Build one frame per dict of {track: embedding}; the landmarks carry the embedding."""
    image = np.zeros((8, 8, 3), np.uint8)
    return [
        (
            Frame(image, index, Fraction(index), Path("x.mp4")),
            [
                Face(Box(0, 0, 9 - t, 9), 1.0, np.full((68, 2), embedding, np.float32), t)
                for t, embedding in frame_tracks.items()
            ],
        )
        for index, frame_tracks in enumerate(tracks)
    ]


@pytest.fixture
def embeddings_from_landmarks(monkeypatch):
    """Take a face's embedding from its landmarks, and count the calls."""
    calls = []

    def embed(image, landmarks):
        calls.append(1)
        return landmarks[0, :1]

    monkeypatch.setattr(selection, "compute_embedding", embed)
    monkeypatch.setattr(selection, "is_knowable", lambda face: face.placed_by != "head")
    return calls


def tracks_of(found):
    return [[face.track for face in faces] for _, faces in found]


def test_track_is_decided_once_by_majority(embeddings_from_landmarks):
    # Track 0 matches the reference (0) in all frames but the first; track 1 (9) never does.
    frames = clip_of(*({0: 5 if i == 0 else 0, 1: 9} for i in range(40)))

    found = selected(frames, FaceSelector((LIKE_0,)))

    assert tracks_of(found) == [[0]] * 40
    later = 2 * (39 // selection.VOTE_EVERY)
    assert len(embeddings_from_landmarks) == 2 * selection.MAX_VOTES + later


def test_track_whose_looks_change_for_good_changes_its_target(embeddings_from_landmarks):
    """One odd vote changes nothing; three in a row do."""
    every = selection.VOTE_EVERY
    odd = range(every, every + 1)
    frames = clip_of(*({0: 9 if i in odd or i >= 3 * every else 0} for i in range(7 * every)))

    found = tracks_of(selected(frames, FaceSelector((LIKE_0,))))

    change = found.index([])
    assert 3 * every <= change == (2 + selection.CHANGED) * every
    assert not any(found[change:])


def test_views_that_show_nobody_do_not_vote_once_others_did(embeddings_from_landmarks):
    """A track begins in profile, in which it looks like somebody else, and turns to the camera."""
    turn, every = 20, selection.UNSURE_VOTE_EVERY
    frames = [
        (frame, [replace(face, placed_by="dlib" if turn <= frame.index <= 60 else "head")
                 for face in faces])
        for frame, faces in clip_of(*({0: 9 if i < turn or i > 60 else 0} for i in range(140)))
    ]  # fmt: skip

    found = tracks_of(selected(frames, FaceSelector((LIKE_0,))))

    assert not any(found[:turn])
    assert all(found[turn + every :])


def swaying(k):
    return {0: 180 + 10 * np.sin(k / 4), 1: 180 - 10 * np.sin(k / 4)}


def widths(*frames):
    """Frames whose faces are given by track and width, largest first."""
    return [
        (number, [Face(Box(0, 0, width, width), 1.0, np.zeros((68, 2), np.float32), track)
                  for track, width in sorted(faces.items(), key=lambda item: -item[1])])
        for number, faces in enumerate(frames)
    ]  # fmt: skip


def kept_tracks(frames, count=1, kept=None):
    largest = selection.LargestTracks(count, kept)
    return [[face.track for face in largest.keep(*frame)] for frame in frames]


def test_faces_of_like_size_do_not_alternate():
    frames = widths(*(swaying(k) for k in range(80)))

    assert kept_tracks(frames) == [[0]] * 80
    assert kept_tracks(frames[10:]) == [[kept_tracks(frames[10:])[0][0]]] * 70


def test_a_face_that_becomes_much_larger_replaces_the_kept_one():
    frames = widths(*({0: 100, 1: 90 if k < 20 else 140} for k in range(60)))

    tracks = kept_tracks(frames)

    assert tracks[20 + selection.SIZE_FRAMES - 2] == [0]
    assert tracks[20 + selection.SIZE_FRAMES :] == [[1]] * (40 - selection.SIZE_FRAMES)


def test_short_absence_does_not_pass_the_place_on_but_a_cut_does():
    gone = {k: {1: 50} for k in range(5, 9)}
    short = widths(*(gone.get(k, {0: 100, 1: 50}) for k in range(20)))
    cut = widths(*({0: 100, 1: 50} if k < 5 else {2: 80, 3: 90} for k in range(10)))
    long = widths(*({0: 100, 1: 50} if k < 5 else {1: 50} for k in range(30)))

    assert kept_tracks(short) == [[] if k in gone else [0] for k in range(20)]
    assert kept_tracks(cut) == [[0]] * 5 + [[3]] * 5
    assert kept_tracks(long)[-1] == [1]


def test_two_largest_faces_are_kept():
    frames = widths(*({0: 100, 1: 98 + k % 3, 2: 99, 3: 10} for k in range(30)))

    assert all(tracks == kept_tracks(frames, 2)[0] for tracks in kept_tracks(frames, 2))
    assert len(kept_tracks(frames, 2)[0]) == 2


def test_resumed_run_keeps_the_same_tracks():
    frames = widths(*(swaying(k) for k in range(60)))
    kept = []
    whole = kept_tracks(frames, 1, kept)

    assert len(kept) == 1
    assert kept_tracks(frames[25:], 1, kept) == whole[25:]


def test_largest_keeps_the_largest_selected_face(embeddings_from_landmarks):
    frames = clip_of(*({0: 9, 1: 0, 2: 0} for _ in range(3)))

    found = selected(frames, FaceSelector((LIKE_0,), largest=True))

    assert tracks_of(found) == [[1]] * 3
    assert tracks_of(selected(frames, FaceSelector(largest=True))) == [[0]] * 3


def test_photos_are_decided_independently(embeddings_from_landmarks):
    frames = clip_of({-1: 0}, {-1: 9})

    assert tracks_of(selected(frames, FaceSelector((LIKE_0,)))) == [[-1], []]


def test_default_selector_keeps_all_faces():
    frames = clip_of({0: 1, 1: 2}, {})

    assert list(selected(frames, FaceSelector())) == frames


def test_face_gets_the_nearest_target(people):
    targets = ((people["hopper"], people["hopper"] + 0.01), (people["collins"],))
    selector = FaceSelector(targets)

    assert selector.target_of(people["collins"]) == 1
    assert selector.target_of(people["hopper"]) == 0
    assert selector.target_of(people["hopper"] + 1) is None
    assert FaceSelector(targets, (people["collins"],)).target_of(people["collins"]) is None


def test_faces_carry_the_target_of_the_majority(embeddings_from_landmarks):
    # Tracks 0 and 1 each match a target, track 2 matches none, track 3 matches one in one frame.
    frames = clip_of(*({0: 0, 1: 1 if i else 0, 2: 9, 3: i % 3 * 9} for i in range(3)))

    found = list(selected(frames, FaceSelector((LIKE_0, (np.ones(1, np.float32),)))))

    assert [{face.track: face.target for face in faces} for _, faces in found] == [{0: 0, 1: 1}] * 3


FOOTAGE = FaceSelector(footage=np.zeros(1, np.float32))


def test_footage_person_is_preferred_to_others_in_shot(embeddings_from_landmarks, caplog):
    frames = clip_of(*({0: 9, 1: 0.1, 2: 0.5} for _ in range(40)))

    assert tracks_of(selected(frames, FOOTAGE)) == [[1]] * 40
    assert len(embeddings_from_landmarks) == 3 * selection.MAX_VOTES
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "the footage shows several people"
    ]


def test_everyone_is_swapped_if_nobody_looks_like_the_footage(embeddings_from_landmarks, caplog):
    frames = clip_of(*({0: 9, 1: 0.7} for _ in range(5)))

    assert tracks_of(selected(frames, FOOTAGE)) == [[0, 1]] * 5
    assert not caplog.records


@pytest.fixture
def no_embeddings(monkeypatch):
    monkeypatch.setattr(
        selection, "compute_embedding", lambda *_: pytest.fail("an embedding was computed")
    )


def test_single_face_is_swapped_without_an_embedding(no_embeddings):
    shots = [{0: 9}] * 20 + [{}] * 3 + [{1: 9}] * 20  # every lookahead in between contains a cut
    frames = clip_of(*shots)

    assert tracks_of(selected(frames, FOOTAGE)) == [list(shot) for shot in shots]
    assert tracks_of(selected(clip_of({-1: 9}, {}, {-1: 0}), FOOTAGE)) == [[-1], [], [-1]]


def test_track_that_starts_alone_is_swapped_to_its_end(embeddings_from_landmarks):
    single, joined = [{0: 9}] * 20, [{0: 9, 1: 0}] * 20
    frames = clip_of(*single, *joined)

    assert tracks_of(selected(frames, FOOTAGE)) == [[0]] * 20 + [[0, 1]] * 20

    frames = clip_of(*[{0: 0}] * 20, *[{0: 0, 1: 9}] * 20)
    assert tracks_of(selected(frames, FOOTAGE)) == [[0]] * 40


def test_lone_stranger_is_not_swapped_if_the_footage_person_appears_elsewhere(
    embeddings_from_landmarks,
):
    """In shot and reverse shot, only one of the two people is swapped."""
    shots = clip_of(*[{1: 9}] * 20, *[{0: 0.1}] * 20, *[{2: 8}] * 5, *[{3: 0.62}] * 5)
    calls = []

    def is_present():
        calls.append(True)
        return True

    kept = tracks_of(selected(shots, FOOTAGE, is_present=is_present))

    # A distance of 0.62 can be the person in a difficult pose.
    assert kept == [[]] * 20 + [[0]] * 20 + [[]] * 5 + [[3]] * 5
    assert len(calls) == 1
    all_faces = tracks_of(selected(shots, FOOTAGE, is_present=lambda: False))
    assert all_faces == [[1]] * 20 + [[0]] * 20 + [[]] * 5 + [[3]] * 5  # track 0 was seen by then


def test_presence_is_only_checked_if_it_matters(embeddings_from_landmarks):
    frames = clip_of(*[{0: 0.1, 1: 9}] * 20, *[{2: 0.64}] * 20)

    def is_present():
        pytest.fail("the footage was searched")

    assert tracks_of(selected(frames, FOOTAGE, is_present=is_present)) == [[0]] * 20 + [[2]] * 20


def test_track_joined_within_the_lookahead_counts_as_in_shot_together(embeddings_from_landmarks):
    frames = clip_of(*[{0: 9}] * 5, *[{0: 9, 1: 0}] * 20)

    assert tracks_of(selected(frames, FOOTAGE)) == [[]] * 5 + [[1]] * 20


def test_one_outlier_frame_does_not_hide_the_footage_person(embeddings_from_landmarks):
    frames = clip_of(*({0: 9 if i == 4 else 0.2, 1: 0.5} for i in range(13)))

    assert tracks_of(selected(frames, FOOTAGE)) == [[0]] * 13


def test_footage_preference_applies_to_each_photo(embeddings_from_landmarks):
    image = clip_of({-1: 9})[0][0]
    two = [face for _, faces in clip_of({-1: 9}, {-1: 0}) for face in faces]

    ((_, kept), (_, single)) = selected([(image, two), (image, two[:1])], FOOTAGE)

    assert [(face.track, face.landmarks[0, 0]) for face in kept] == [(-1, 0)]
    assert [(face.track, face.landmarks[0, 0]) for face in single] == [(-1, 9)]


def test_targets_take_precedence_over_the_footage(embeddings_from_landmarks):
    frames = clip_of({0: 9, 1: 0})

    selector = FaceSelector(((np.full(1, 9, np.float32),),), footage=np.zeros(1, np.float32))

    assert tracks_of(selected(frames, selector)) == [[0]]


def test_earlier_decisions_are_reused_without_embeddings(embeddings_from_landmarks, monkeypatch):
    frames = clip_of(*({0: 9, 1: 0.1} for _ in range(30)), *({0: 9, 1: 0.1, 2: 0.3},) * 3)
    decisions = Decisions()
    first = [
        (n, tracks) for n, tracks in enumerate(tracks_of(selected(frames, FOOTAGE, decisions)))
    ]
    assert {vote.track: vote.target for vote in decisions.votes} == {0: None, 1: 0, 2: None}
    assert decisions.distances == pytest.approx({0: 9, 1: 0.1, 2: 0.3})

    monkeypatch.setattr(
        selection, "compute_embedding", lambda *_: pytest.fail("an embedding was computed")
    )
    repeated = tracks_of(selected(frames[10:], FOOTAGE, decisions))

    assert list(enumerate(repeated, start=10)) == first[10:]
    decided = [Vote(0, 0, 0, True), Vote(0, 1, None, True)]
    assert tracks_of(selected(frames[:2], FOOTAGE, Decisions(decided))) == [[0], [0]]


def test_footage_person_is_preferred_in_a_real_photo_of_two(together, people):
    frame = Frame(together, 0, Fraction(0), Path("x.png"))
    faces = detect_hog(together, 0.2)
    assert len(faces) == 2

    for name, is_left in (("collins", True), ("hopper", False)):
        ((_, kept),) = selected([(frame, faces)], FaceSelector(footage=people[name]))
        assert [(face.box.left < 512) for face in kept] == [is_left]
    ((_, kept),) = selected([(frame, faces)], FaceSelector(footage=people["hopper"] + 1))
    assert len(kept) == 2
