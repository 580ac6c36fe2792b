"""`python -m milepost` is `milepost`."""

from milepost.cli.entry import main

raise SystemExit(main())
