//go:build tools

// Package server names the programs whose versions go.mod pins.
package server

import (
	_ "github.com/prometheus/prometheus/cmd/prometheus"
	_ "github.com/prometheus/prometheus/cmd/promtool"
)
