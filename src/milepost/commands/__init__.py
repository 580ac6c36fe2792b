"""One verb a file, each a straight story: Args, main, and nothing hidden."""
