"""Finding classes by name: `MODULE:NAME`, or the entry-point group `aspen.applications`."""

from __future__ import annotations

import importlib
import importlib.metadata
import traceback
from typing import Any, Final

from aspen.errors import ConfigError
from aspen.node.config import suggestion
from aspen.otp import Application

ENTRY_POINT_GROUP: Final = "aspen.applications"


def load_object(class_path: str) -> Any:
    """The object at `module:Name` (dots in the name reach into classes).

    Raises:
        ConfigError: the module or the name does not exist, or importing it failed; the message says which, where.
    """
    module_name, colon, qualname = class_path.partition(":")
    if not colon or not module_name or not qualname:
        raise ConfigError(f"{class_path!r} is no class path; write it as module:Class, like examples.counter:Counter")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ConfigError(
                f"there is no module {error.name!r}, wanted for {class_path!r}; is it installed, or is the current "
                f"directory the wrong one?"
            ) from None
        raise ConfigError(f"importing {module_name!r} failed: {error}; install what is missing") from error
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise ConfigError(
            f"importing {module_name!r} failed in {where.filename}:{where.lineno}: {type(error).__name__}: {error}"
        ) from error
    for part in qualname.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            names = _own_names(found, module_name)
            raise ConfigError(f"{module_name} has no {qualname!r}{suggestion(part, names)}") from None
    return found


def _own_names(found: Any, module_name: str) -> list[str]:
    """The names that a module or a class defines; all its public ones when it only passes on what others define."""
    public = [name for name in vars(found) if not name.startswith("_")]
    own = [name for name in public if getattr(vars(found)[name], "__module__", None) == module_name]
    return own or public


def load_application(spec: str) -> type[Application]:
    """The application at `module:Name`, or the one that an installed package calls `spec`.

    Raises:
        ConfigError: there is none; says what there is.
    """
    if ":" not in spec:
        return _from_entry_point(spec)
    found = load_object(spec)
    if not (isinstance(found, type) and issubclass(found, Application)):
        kind = f"the class {found.__qualname__}" if isinstance(found, type) else f"{found!r:.60}"
        raise ConfigError(f"{spec} is {kind}, not an application; derive a class from aspen.Application")
    return found


def _from_entry_point(name: str) -> type[Application]:
    points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    for point in points:
        if point.name == name:
            return load_application(point.value)
    others = suggestion(name, points.names) if points else ""
    raise ConfigError(f"no installed package has an application {name!r}{others}; or name a class, as module:Class")
