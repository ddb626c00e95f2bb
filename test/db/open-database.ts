import { openDatabase } from '../../src/db/database.ts'

/** A process that opens the database that its argument names, as JSON, and prints which migrations that has seen. */
const db = await openDatabase(JSON.parse(process.argv[2]!))
process.stdout.write(JSON.stringify(await db('knex_migrations').orderBy('id').pluck('name')))
await db.destroy()
