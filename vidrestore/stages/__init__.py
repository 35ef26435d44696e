"""The verbs, in the order in which a frame meets them.

decode   file -> frames, and what must be known of the stream
detect   frames -> faces found in each, and how much the picture changed
track    faces -> one track per face and shot
align    tracks -> smooth geometry
crop     frames -> frames with aligned crops
restore  crops -> restored crops, in batches across frames and faces
paste    restored crops -> the planes of the frame, in place
encode   frames -> a video stream
remux    that stream and everything else of the source -> the output
"""
