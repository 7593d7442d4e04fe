"""No package of the image overwrites a file of another one: which version of it stayed would be a matter of chance."""

from collections import defaultdict

from hermes.devserver import PROJECT
from tests.support.wheels import files_of_wheels, installed

# Two packages take their build script along. Nothing imports it; and it shows that what is twice is found.
OF_NO_USE = {"build_backend.py": ["flashinfer-python", "torch-c-dlpack-ext"]}


def owned_twice(files):
    owners = defaultdict(list)
    for package, paths in sorted(files.items()):
        for path in paths:
            owners[path].append(package)
    return {path: packages for path, packages in owners.items() if len(packages) > 1}


def test_each_file_of_the_image_is_of_one_package():
    files = files_of_wheels(PROJECT / "requirements.txt")
    assert len(files) > 150
    assert sum(map(len, files.values())) > 50_000
    assert owned_twice(files) == OF_NO_USE


def test_files_land_where_pip_puts_them():
    assert [installed(path) for path in ("a/b.py", "a-1.data/purelib/a/c.py", "a-1.data/scripts/a", "a.data/b.py")] == [
        "a/b.py",
        "a/c.py",
        "bin/a",
        "a.data/b.py",
    ]
