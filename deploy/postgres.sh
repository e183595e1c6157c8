# Run once by PostgreSQL's image, in a new database: the gateway gets a role that is no superuser.
# The password goes through psql's own quoting, and stands in no argument list.
PASSWORD=$(cat /run/secrets/password) psql --quiet --set=ON_ERROR_STOP=1 --username=postgres <<'SQL'
\getenv password PASSWORD
CREATE ROLE gateway LOGIN PASSWORD :'password';
CREATE DATABASE gateway OWNER gateway;
SQL
