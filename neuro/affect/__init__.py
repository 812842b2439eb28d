"""What a text expresses: emotion, sentiment, subjectivity, intent, valence-arousal-dominance, and how it would be spoken.

`corpora` reads the labelled data, `words` cuts a text, `vectors` makes word vectors from plain text, `encoder` is the one
network under every head and `fit` trains it, `ngrams` is each head's other half, `reader` answers. `prominence` says which
words would be stressed, `channel` turns that into the prosody input of a brain.
"""
