"""The stages of a run: conversion, timing, scoring and its cache, isolated processes."""
