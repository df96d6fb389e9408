"""Followers of a store that write its curves, scores and settings to other tools; workers know nothing of them.

following     reads the store as the board does, and hands what it finds to a tracker
event_files   TensorBoard's event files
mlflow_runs   runs of an MLflow server or folder
"""
