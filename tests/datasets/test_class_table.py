import time

import pytest

from segnext_jax.datasets.class_table import (
    ClassTable,
    distinct_colours,
    read_class_table,
)


def read(tmp_path, text):
    path = tmp_path / "classes.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_class_table(path)


def test_names_keep_their_order_and_their_spaces(tmp_path):
    table = read(tmp_path, "# my set\nroad\n\n traffic light \r\nstage 2\n")
    assert table == ClassTable(("road", "traffic light", "stage 2"))


@pytest.mark.parametrize(
    "line", ["tree 1 22 255", "tree,1,22,255", "tree ;1; 22;255", '"tree"\t1\t22\t255']
)
def test_colours_are_separated_by_whatever_tables_use(tmp_path, line):
    table = read(tmp_path, f"traffic light 0 0 9\n{line}\n")
    assert table == ClassTable(("traffic light", "tree"), ((0, 0, 9), (1, 22, 255)))


def test_ignore_is_a_colour_and_no_class(tmp_path):
    text = "ignore 0 0 0\na 1 1 1\nignore 255 255 255\nb 2 2 2\n"
    table = read(tmp_path, text)
    assert table.classes == ("a", "b")
    assert table.ignore_colours == ((0, 0, 0), (255, 255, 255))


def test_all_faults_are_named_by_line(tmp_path):
    text = "a 1 2 3\nb\n\na 4 5 6\nc 1 2 256\nd,1\n,1 2 3\nignore\n"
    with pytest.raises(ValueError) as error:
        read(tmp_path, text)
    message = str(error.value)
    for part in (
        "line 2: either each class has a colour or none has one",
        "line 4: 'a' is the class of line 1 already",
        "line 5: the colour (1, 2, 256) must lie in [0, 255]",
        "line 6: 'd,1' is no name",
        "line 7: ',1 2 3' has no name",
        "line 8: 'ignore' needs a colour",
    ):
        assert part in message


def test_a_colour_after_names_without_is_refused(tmp_path):
    with pytest.raises(ValueError, match="line 2: either each class"):
        read(tmp_path, "a\nb 1 2 3\n")


def test_a_file_that_is_missing_empty_or_no_text_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="one class name per line"):
        read_class_table(tmp_path / "classes.txt")
    with pytest.raises(ValueError, match="it names no class"):
        read(tmp_path, "# nothing\n")
    with pytest.raises(ValueError, match="must be a text file: .* Save it .* in UTF-8"):
        read(tmp_path, b"\x89PNG\0\0\x01r")


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    assert read(tmp_path, b"\xef\xbb\xbfa\nb\n").classes == ("a", "b")


def test_made_up_colours_differ_and_do_not_change_with_their_number():
    colours = distinct_colours(255)
    assert len(set(colours)) == 255
    assert colours[:7] == distinct_colours(7)
    spec = ClassTable(("a", "b")).spec("mine")
    assert spec.colours == colours[:2] and spec.name == "mine"


def test_numbers_that_count_the_lines_are_no_part_of_the_names(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("0 sky 1 2 3\n1: traffic light 4 5 6\n2. road 7 8 9\n")
    table = read_class_table(path)
    assert table.classes == ("sky", "traffic light", "road")
    assert table.colours[1] == (4, 5, 6)
    # Other numbers are.
    path.write_text("0 sky\n2 lanes\n")
    assert read_class_table(path).classes == ("0 sky", "2 lanes")


@pytest.mark.parametrize(
    ("text", "classes", "colours"),
    [
        (
            "bg = 0:0:0\nroad = 128:64:128\n",
            ("bg", "road"),
            ((0, 0, 0), (128, 64, 128)),
        ),
        (
            "# label:color_rgb:parts:actions\nbg:0,0,0::\nroad:1,2,3:a,b:walk\n",
            ("bg", "road"),
            ((0, 0, 0), (1, 2, 3)),
        ),
        ("Pixel Value, Class\n0, bg\n1, road sign\n", ("bg", "road sign"), ()),
        ('"chest, left"\n"a; b"\n', ("chest, left", "a; b"), ()),
        ('"chest, left" 1 2 3\n', ("chest, left",), ((1, 2, 3),)),
    ],
)
def test_tables_of_labelling_tools_are_read(tmp_path, text, classes, colours):
    assert read(tmp_path, text) == ClassTable(classes, colours)


def test_a_byte_holds_255_classes_and_the_ignored(tmp_path):
    names = [f"class {i}" for i in range(256)]
    assert len(read(tmp_path, "\n".join(names[:255])).spec("mine").classes) == 255
    with pytest.raises(
        ValueError, match="it names 256 classes, and at most 255 can be"
    ):
        read(tmp_path, "\n".join(names))
    with pytest.raises(ValueError, match="must have at most 255 classes, .* got 256"):
        ClassTable(tuple(names)).spec("mine")


@pytest.mark.parametrize("line", ["a", "a\n1 2", "1 2 3 4 5 6 ", "x,,"])
def test_a_file_of_a_million_lines_is_refused_at_once(tmp_path, line):
    start = time.process_time()
    with pytest.raises(ValueError, match="classes.txt") as error:
        read(tmp_path, (line + "\n") * 100_000)
    with pytest.raises(ValueError, match="line 1: it is longer than 300 characters"):
        read(tmp_path, line.replace("\n", " ") * 50_000)
    with pytest.raises(ValueError, match="must have at most 1,048,576 bytes"):
        read(tmp_path, "a\n" * 1_000_000)
    assert len(str(error.value)) < 2000
    assert time.process_time() - start < 5


@pytest.mark.parametrize("name", ["labelmap.txt", "_classes.csv"])
def test_the_table_of_a_labelling_tool_is_named_where_classes_are_missing(
    tmp_path, name
):
    (tmp_path / name).write_text("road:128,64,128::\n")
    with pytest.raises(FileNotFoundError, match=f"Copy {name} to it"):
        read_class_table(tmp_path / "classes.txt")
