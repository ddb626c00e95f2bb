// The clients that knex picks by name, which it exports without types.

declare module 'knex/lib/dialects/postgres/index.js' {
  import type { Knex } from 'knex'

  const PostgresClient: typeof Knex.Client
  export default PostgresClient
}

declare module 'knex/lib/dialects/better-sqlite3/index.js' {
  import type { Knex } from 'knex'

  const SqliteClient: typeof Knex.Client
  export default SqliteClient
}
