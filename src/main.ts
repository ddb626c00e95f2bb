#!/usr/bin/env -S node --max-semi-space-size=2
import { readFileSync } from 'node:fs'
import { configShow } from './cli/config-command.ts'
import { nodeCommands } from './cli/node-commands.ts'
import { runCli } from './cli/run.ts'
import { version } from './cli/version-command.ts'
import { systemNetwork } from './runtime/network.ts'
import { serve } from './serve.ts'

const commands = [serve, ...nodeCommands(systemNetwork), configShow, version]

const code = await runCli(process.argv.slice(2), commands, {
  env: process.env,
  readFile: (path) => readFileSync(path, 'utf8'),
  out: (text) => process.stdout.write(`${text}\n`),
  err: (text) => process.stderr.write(`${text}\n`),
})
// Not left to an empty event loop: a connection that someone keeps open must not hold a finished command up.
process.exit(code)
