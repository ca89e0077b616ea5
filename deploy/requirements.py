"""Print the dependencies of a project and of some of its extras: `requirements.py PYPROJECT EXTRA...`.

The image installs this list before the project itself, so that a change of the code keeps that layer.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text())["project"]
extras = [project["optional-dependencies"][extra] for extra in sys.argv[2:]]
sys.stdout.write("\n".join(sum(extras, project["dependencies"])) + "\n")
