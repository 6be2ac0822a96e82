"""R-CNN of 2014, step by step: proposals, warped crops, features, support vector machines.

Needs scikit-image and scikit-learn, `pip install 'kerascv-d2l[rcnn]'`.
"""
