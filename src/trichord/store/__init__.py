"""The store: one folder that holds features, spectrograms, captions and word ids of any number of videos.

This room writes stores, reads them by random slice, checks them, and caches the parts of remote stores. Items are produced
elsewhere (`trichord.extraction`, `trichord.releases`), and batches for training are assembled elsewhere (`trichord.data`).
"""

from trichord.store.items import Item
from trichord.store.manifest import StreamInfo
from trichord.store.store import Store
from trichord.store.words import WordVectors
from trichord.store.writer import StoreWriter

__all__ = ["Item", "Store", "StoreWriter", "StreamInfo", "WordVectors"]
