"""From the name of a place to what lies there; nothing is asked of a server yet."""

from pathlib import Path

from crosswatch.data.store.objects import Objects
from crosswatch.data.store.place import Place
from crosswatch.data.store.settings import TransferConfig
from crosswatch.data.store.stored import Store


def open_objects(place: Place, config: TransferConfig) -> Objects:
    """The objects below a place; nothing is asked of a server yet."""
    if isinstance(place, Path):
        from crosswatch.data.store.folder import FolderObjects

        return FolderObjects(place)
    from crosswatch.data.store.s3 import S3Objects

    return S3Objects(place, config)


def open_store(place: Place, config: TransferConfig) -> Store:
    """The artifacts in a place; nothing is asked of a server yet."""
    return Store(open_objects(place, config), config)
