"""Samples of pictures: planes, color, geometry, resampling, optical flow."""
