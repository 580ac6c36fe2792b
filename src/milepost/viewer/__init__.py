"""`milepost view`: a local page on which a dataset's episodes are looked at, their curves curves_to_compare, their stages corrected.

`review` knows what is shown, `server` puts it on a loopback port, `page/` is what the browser loads. Nothing here is drawn by matplotlib.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
