#!/usr/bin/env -S node --max-semi-space-size=2
import { backupCommands } from './backup-commands.ts'
import { allCommands } from './cli/commands.ts'
import { runCli } from './cli/run.ts'
import { dbCommands } from './db-commands.ts'
import { devCluster } from './dev-cluster.ts'
import { systemClock } from './runtime/clock.ts'
import { systemNetwork } from './runtime/network.ts'
import { processIo } from './runtime/process-io.ts'
import { systemRandom } from './runtime/random.ts'
import { serve } from './serve.ts'

const ports = { network: systemNetwork, clock: systemClock, random: systemRandom }
const commands = [serve, devCluster(ports), ...allCommands(ports), ...dbCommands(ports), ...backupCommands()]
const code = await runCli(process.argv.slice(2), commands, { env: process.env, ...processIo() })
// Not left to an empty event loop: a connection that someone keeps open must not hold a finished command up.
process.exit(code)
