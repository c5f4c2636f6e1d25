# Tries each wheel of dist/ as cibuildwheel would: the commands are those of pyproject.toml.
set -eu
for wheel in dist/*.whl; do
    python=$(python -c 'import re, sys; print("python" + re.sub(r"cp(\d)(\d+)", r"\1.\2", sys.argv[1].split("-")[2]))' "$wheel")
    rm -rf build/tried
    "$python" -m venv build/tried
    build/tried/bin/python -c '
import sys, tomllib
settings = tomllib.load(open("pyproject.toml", "rb"))["tool"]["cibuildwheel"]
print(settings["before-test"].replace("{project}", "."))
print("pip install --no-deps --no-index " + sys.argv[1])
for command in settings["test-command"]:
    print(command)' "$wheel" >build/tried/commands
    PATH=$PWD/build/tried/bin:$PATH sh -eux build/tried/commands
done
