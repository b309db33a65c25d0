"""How exact answers are on changed, foreign and labelled pictures, and what writes those pictures."""
