from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from faceswap.faces import selection
from faceswap.faces.dlib_backend import compute_embedding, detect_hog
from faceswap.faces.geometry import Box, Face
from faceswap.faces.selection import Decisions, FaceSelector, select_faces
from faceswap.media.frame import Frame


@pytest.fixture(scope="module")
def people(collins, collins_face, hopper):
    (hopper_face,) = detect_hog(hopper, 0.2)
    return {
        "collins": compute_embedding(collins, collins_face.landmarks),
        "hopper": compute_embedding(hopper, hopper_face.landmarks),
    }


@pytest.mark.parametrize(
    ("who", "exclude", "wanted"),
    [
        ((), (), {"collins", "hopper"}),
        (("collins",), (), {"collins"}),
        (("collins", "hopper"), (), {"collins", "hopper"}),
        ((), ("collins",), {"hopper"}),
        (("hopper",), ("collins",), {"hopper"}),
    ],
)
def test_who_is_wanted(people, who, exclude, wanted):
    selector = FaceSelector((tuple(people[n] for n in who),), tuple(people[n] for n in exclude))

    assert {name for name, found in people.items() if selector.target_of(found) == 0} == wanted
    assert {selector.target_of(found) for found in people.values()} <= {0, None}


LIKE_0 = (np.zeros(1, np.float32),)  # a role of who looks like 0, as below


def clip_of(*tracks):
    """Frames in which faces of these tracks are seen; a track's number says who it is."""
    image = np.zeros((8, 8, 3), np.uint8)
    return [
        (
            Frame(image, index, Fraction(index), Path("x.mp4")),
            [
                Face(Box(0, 0, 9 - t, 9), 1.0, np.full((68, 2), looks, np.float32), t)
                for t, looks in some.items()
            ],
        )
        for index, some in enumerate(tracks)
    ]


@pytest.fixture
def by_landmarks(monkeypatch):
    """A face looks like a person as far as its landmarks say."""
    calls = []

    def look(image, landmarks):
        calls.append(1)
        return landmarks[0, :1]

    monkeypatch.setattr(selection, "compute_embedding", look)
    return calls


def tracks_of(found):
    return [[face.track for face in faces] for _, faces in found]


def test_a_track_is_decided_once_by_the_majority(by_landmarks):
    # track 0 looks like the one wanted (0) in most frames, track 1 (9) in none
    frames = clip_of(*({0: 5 if i == 0 else 0, 1: 9} for i in range(40)))

    found = select_faces(frames, FaceSelector((LIKE_0,)))

    assert tracks_of(found) == [[0]] * 40
    assert len(by_landmarks) == 2 * selection.MAX_VOTES


def test_the_largest_of_those_chosen_is_kept(by_landmarks):
    frames = clip_of(*({0: 9, 1: 0, 2: 0} for _ in range(3)))

    found = select_faces(frames, FaceSelector((LIKE_0,), largest=True))

    assert tracks_of(found) == [[1]] * 3
    assert tracks_of(select_faces(frames, FaceSelector(largest=True))) == [[0]] * 3


def test_photos_are_decided_one_by_one(by_landmarks):
    frames = clip_of({-1: 0}, {-1: 9})

    assert tracks_of(select_faces(frames, FaceSelector((LIKE_0,)))) == [[-1], []]


def test_without_a_choice_everything_passes():
    frames = clip_of({0: 1, 1: 2}, {})

    assert list(select_faces(frames, FaceSelector())) == frames


def test_each_face_goes_to_the_role_it_is_most_like(people):
    targets = ((people["hopper"], people["hopper"] + 0.01), (people["collins"],))
    selector = FaceSelector(targets)

    assert selector.target_of(people["collins"]) == 1
    assert selector.target_of(people["hopper"]) == 0
    assert selector.target_of(people["hopper"] + 1) is None
    assert FaceSelector(targets, (people["collins"],)).target_of(people["collins"]) is None


def test_roles_travel_with_faces_and_the_majority_gives_them(by_landmarks):
    # 0 and 1 each look like a role; 9 like none; track 3 like another one in every frame
    frames = clip_of(*({0: 0, 1: 1 if i else 0, 2: 9, 3: i % 3 * 9} for i in range(3)))

    found = list(select_faces(frames, FaceSelector((LIKE_0, (np.ones(1, np.float32),)))))

    assert [{face.track: face.target for face in faces} for _, faces in found] == [{0: 0, 1: 1}] * 3


FOOTAGE = FaceSelector(footage=np.zeros(1, np.float32))


def test_the_footage_is_preferred_to_its_company(by_landmarks, caplog):
    frames = clip_of(*({0: 9, 1: 0.1, 2: 0.5} for _ in range(40)))

    assert tracks_of(select_faces(frames, FOOTAGE)) == [[1]] * 40
    assert len(by_landmarks) == 3 * selection.MAX_VOTES
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "somebody else is in shot"
    ]


def test_where_nobody_looks_like_the_footage_everybody_is_swapped(by_landmarks, caplog):
    frames = clip_of(*({0: 9, 1: 0.7} for _ in range(5)))

    assert tracks_of(select_faces(frames, FOOTAGE)) == [[0, 1]] * 5
    assert not caplog.records


@pytest.fixture
def never_described(monkeypatch):
    monkeypatch.setattr(
        selection, "compute_embedding", lambda *_: pytest.fail("a face was described")
    )


def test_a_single_face_is_swapped_without_a_look_at_it(never_described):
    shots = [{0: 9}] * 20 + [{}] * 3 + [{1: 9}] * 20  # a cut in every window in between
    frames = clip_of(*shots)

    assert tracks_of(select_faces(frames, FOOTAGE)) == [list(shot) for shot in shots]
    assert tracks_of(select_faces(clip_of({-1: 9}, {}, {-1: 0}), FOOTAGE)) == [[-1], [], [-1]]


def test_a_track_that_began_alone_is_swapped_to_its_end(by_landmarks):
    exclusive_folder, joined = [{0: 9}] * 20, [{0: 9, 1: 0}] * 20
    frames = clip_of(*exclusive_folder, *joined)

    assert tracks_of(select_faces(frames, FOOTAGE)) == [[0]] * 20 + [[0, 1]] * 20

    frames = clip_of(*[{0: 0}] * 20, *[{0: 0, 1: 9}] * 20)
    assert tracks_of(select_faces(frames, FOOTAGE)) == [[0]] * 40


def test_who_is_alone_in_shot_is_left_alone_if_the_footage_is_seen_elsewhere(by_landmarks):
    """Shot and reverse shot: only one of the two is swapped."""
    shots = clip_of(*[{1: 9}] * 20, *[{0: 0.1}] * 20, *[{2: 8}] * 5, *[{3: 0.62}] * 5)
    asked = []

    def present():
        asked.append(True)
        return True

    kept = tracks_of(select_faces(shots, FOOTAGE, is_present=present))

    assert kept == [[]] * 20 + [[0]] * 20 + [[]] * 5 + [[3]] * 5  # 0.62 may be a hard pose
    assert len(asked) == 1
    all_faces = tracks_of(select_faces(shots, FOOTAGE, is_present=lambda: False))
    assert all_faces == [[1]] * 20 + [[0]] * 20 + [[]] * 5 + [[3]] * 5  # seen by then


def test_the_footage_is_not_looked_for_where_it_does_not_matter(by_landmarks):
    frames = clip_of(*[{0: 0.1, 1: 9}] * 20, *[{2: 0.64}] * 20)

    def exclude():
        pytest.fail("asked")

    assert tracks_of(select_faces(frames, FOOTAGE, is_present=exclude)) == [[0]] * 20 + [[2]] * 20


def test_a_track_soon_joined_counts_as_in_company(by_landmarks):
    frames = clip_of(*[{0: 9}] * 5, *[{0: 9, 1: 0}] * 20)

    assert tracks_of(select_faces(frames, FOOTAGE)) == [[]] * 5 + [[1]] * 20


def test_an_odd_frame_does_not_hide_the_footage(by_landmarks):
    frames = clip_of(*({0: 9 if i == 4 else 0.2, 1: 0.5} for i in range(13)))

    assert tracks_of(select_faces(frames, FOOTAGE)) == [[0]] * 13


def test_a_photo_prefers_the_footage_by_itself(by_landmarks):
    image = clip_of({-1: 9})[0][0]
    two = [face for _, faces in clip_of({-1: 9}, {-1: 0}) for face in faces]

    ((_, kept), (_, single)) = select_faces([(image, two), (image, two[:1])], FOOTAGE)

    assert [(face.track, face.landmarks[0, 0]) for face in kept] == [(-1, 0)]
    assert [(face.track, face.landmarks[0, 0]) for face in single] == [(-1, 9)]


def test_named_people_come_before_the_footage(by_landmarks):
    frames = clip_of({0: 9, 1: 0})

    selector = FaceSelector(((np.full(1, 9, np.float32),),), footage=np.zeros(1, np.float32))

    assert tracks_of(select_faces(frames, selector)) == [[0]]


def test_decisions_given_back_are_repeated_without_a_look(by_landmarks, monkeypatch):
    frames = clip_of(*({0: 9, 1: 0.1} for _ in range(30)), *({0: 9, 1: 0.1, 2: 0.3},) * 3)
    decisions = Decisions()
    first = [
        (n, tracks) for n, tracks in enumerate(tracks_of(select_faces(frames, FOOTAGE, decisions)))
    ]
    assert decisions.targets == {0: None, 1: 0, 2: None}
    assert decisions.distances == pytest.approx({0: 9, 1: 0.1, 2: 0.3})

    monkeypatch.setattr(
        selection, "compute_embedding", lambda *_: pytest.fail("a face was described")
    )
    again = tracks_of(select_faces(frames[10:], FOOTAGE, decisions))

    assert list(enumerate(again, start=10)) == first[10:]
    assert tracks_of(select_faces(frames[:2], FOOTAGE, Decisions({0: 0, 1: None}))) == [[0], [0]]


def test_the_real_person_is_preferred_in_a_photo_of_two(together, people):
    frame = Frame(together, 0, Fraction(0), Path("x.png"))
    faces = detect_hog(together, 0.2)
    assert len(faces) == 2

    for name, on_the_left in (("collins", True), ("hopper", False)):
        ((_, kept),) = select_faces([(frame, faces)], FaceSelector(footage=people[name]))
        assert [(face.box.left < 512) for face in kept] == [on_the_left]
    ((_, kept),) = select_faces([(frame, faces)], FaceSelector(footage=people["hopper"] + 1))
    assert len(kept) == 2
