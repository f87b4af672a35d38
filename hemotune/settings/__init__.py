"""The schemas of params.yaml and of the profiles, a module for each section, so that a change in
one concerns only its own stages.
"""
