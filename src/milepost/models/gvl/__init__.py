"""GVL: a vision-language model puts a percentage to every frame of an episode, shown in a shuffled order so that it cannot count them."""
