"""Recordings of senses as spikes: event cameras, images, speech through a cochlea, recorded spike trains.

Loaders take the folder that holds the data sets (``root``; None is the variable NEURO_DATA) and return numpy arrays;
nothing is downloaded, nothing is written.
"""
