/**
 * What Node, HTTP and Fastify cost, for bench/api.ts: a bare server that knows no tokens, versions, schemas, policy or
 * database. It answers with the same documents as Collie and, on POST, only after a write to the disk was synced.
 * Plain JavaScript, so that neither a compiler nor a loader is in its memory or its start.
 * Usage: node bench/api-reference.mjs DIRECTORY (with show.json and list.json in it); prints its address
 */
import { fdatasyncSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import fastify from 'fastify'

const directory = process.argv[2]
if (directory === undefined) throw new Error('usage: api-reference.mjs DIRECTORY')

/** @param {string} name */
const document = (name) => JSON.parse(readFileSync(join(directory, name), 'utf8'))
const [show, list] = [document('show.json'), document('list.json')]
const file = openSync(join(directory, 'durable'), 'w')
const page = Buffer.alloc(4096, 0xa5)

const app = fastify()
app.get('/show', (_request, reply) => reply.type('application/json').send(JSON.stringify(show)))
app.get('/list', (_request, reply) => reply.type('application/json').send(JSON.stringify(list)))
app.post('/durable', (_request, reply) => {
  writeSync(file, page, 0, page.length, 0)
  fdatasyncSync(file)
  return reply.code(202).type('application/json').send(JSON.stringify(show))
})
process.stdout.write(`${await app.listen({ host: '127.0.0.1', port: 0 })}\n`)
