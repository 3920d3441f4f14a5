"""One folder that holds features, spectrograms, captions and word ids of any number of videos."""

from trichord.store.items import Item
from trichord.store.manifest import StreamInfo
from trichord.store.store import Store
from trichord.store.words import WordVectors
from trichord.store.writer import StoreWriter

__all__ = ["Item", "Store", "StoreWriter", "StreamInfo", "WordVectors"]
